import type { Readable } from 'node:stream';

/** What a program printed, up to a limit. Reading goes on beyond it, or the program would block. */
export class BoundedOutput {
  private text = '';
  private dropped = 0;

  constructor(private readonly charsMax: number) {}

  /** Keeps only the end: what was printed last explains most. */
  follow(stream: Readable): void {
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      this.text += chunk;
      const excess = this.text.length - this.charsMax;
      if (excess <= 0) return;
      this.dropped += excess;
      this.text = this.text.slice(excess);
    });
    // The stream of a worker that was terminated; what it had printed is here already.
    stream.on('error', () => {});
  }

  toString(): string {
    return this.dropped === 0 ? this.text : `(${this.dropped} characters before this)…${this.text}`;
  }
}
