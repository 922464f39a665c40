import type { Logger } from '../../src/kernel/log.ts';
import type { VirtualTime } from './virtual-time.ts';

export interface TraceLine {
  readonly atMs: number;
  readonly who: string;
  readonly what: string;
  /** Worth showing when only a part can be shown. */
  readonly notable: boolean;
}

/**
 * What happened in a run: always as one number, which two runs of a seed must share, and as lines when
 * somebody wants to read them.
 */
export class Trace {
  readonly lines: TraceLine[] = [];
  private a = 0x811c9dc5;
  private b = 0x9e3779b9;

  constructor(
    private readonly time: VirtualTime,
    readonly recording: boolean,
  ) {}

  /** `what` and `subject` enter the hash; `detail` is made only for readers. */
  event(who: string, what: string, subject: string, detail?: () => string): void {
    this.mix(this.time.nowMs * 1_000);
    this.mixText(who);
    this.mixText(what);
    this.mixText(subject);
    if (this.recording) this.line(who, `${what} ${subject}${detail === undefined ? '' : ` ${detail()}`}`, false);
  }

  /** Something that readers of a failure look for first: a fault, a change of leadership, a decision. */
  notable(who: string, what: string): void {
    this.mix(this.time.nowMs * 1_000);
    this.mixText(what);
    this.line(who, what, true);
  }

  get hash(): string {
    return (this.a >>> 0).toString(16).padStart(8, '0') + (this.b >>> 0).toString(16).padStart(8, '0');
  }

  /** The log of one process. It enters no hash: what is logged must not matter. */
  logger(who: string): Logger {
    if (!this.recording) return SILENT;
    const write = (level: string, notable: boolean) => (fields: object, message: string) =>
      this.line(who, `${level} ${message} ${render(fields)}`, notable);
    const logger: Logger = {
      debug: write('debug', false),
      info: write('info', true),
      warn: write('warn', true),
      error: write('ERROR', true),
      child: () => logger,
    };
    return logger;
  }

  private line(who: string, what: string, notable: boolean): void {
    if (this.recording) this.lines.push({ atMs: this.time.nowMs, who, what, notable });
  }

  private mix(value: number): void {
    this.a = Math.imul(this.a ^ (value | 0), 0x01000193);
    this.b = (Math.imul(this.b ^ (this.a >>> 15), 0x85ebca6b) + (value | 0)) | 0;
  }

  private mixText(text: string): void {
    let { a } = this;
    for (let i = 0; i < text.length; i++) a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    this.a = a;
    this.b = (Math.imul(this.b ^ (a >>> 13), 0xc2b2ae35) + text.length) | 0;
  }
}

const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => SILENT };

function render(fields: object): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text =
      value instanceof Error
        ? `${'code' in value ? `${String(value.code)} ` : ''}${value.message}`
        : typeof value === 'object'
          ? JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner))
          : String(value);
    parts.push(`${name}=${text.slice(0, 200)}`);
  }
  return parts.join(' ');
}
