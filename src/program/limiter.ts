import { UnavailableError } from '../kernel/errors.ts';

/** At most `running` pieces of work at once and `waiting` in line; more are refused at once. */
export class Limiter {
  private active = 0;
  private readonly queue: (() => void)[] = [];

  constructor(private readonly limits: { readonly running: number; readonly waiting: number }) {}

  async run<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.active >= this.limits.running) {
      if (this.queue.length >= this.limits.waiting) {
        throw new UnavailableError(`too many at once: ${what}`, { hint: 'Try again in a few seconds.' });
      }
      // The one that ends hands its place over, so `active` stays as it is.
      await new Promise<void>((resolve) => this.queue.push(resolve));
    } else {
      this.active++;
    }
    try {
      return await work();
    } finally {
      const next = this.queue.shift();
      if (next === undefined) this.active--;
      else next();
    }
  }
}
