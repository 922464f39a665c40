import type { Clock, Timer } from '../../src/kernel/clock.ts';

/**
 * What may end one call early: its caller, the end of the store, or time. Time can be given anew
 * while bytes flow, so that a large object takes as long as it needs and a silent server does not.
 */
export class S3Limit {
  readonly signal: AbortSignal;
  private readonly controller = new AbortController();
  private readonly forget: (() => void)[] = [];
  private timer: Timer;
  private why: 'time' | 'caller' | 'closed' | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly limitMs: number,
    private readonly caller: AbortSignal | undefined,
    store: AbortSignal,
  ) {
    this.signal = this.controller.signal;
    this.timer = this.arm();
    this.follow(caller, 'caller');
    this.follow(store, 'closed');
  }

  get ended(): 'time' | 'caller' | 'closed' | undefined {
    return this.why;
  }

  /** What the caller wants to see when it ended the call itself. */
  get callersReason(): unknown {
    return this.caller?.reason;
  }

  /** Bytes have come: the time starts anew. */
  touch(): void {
    this.timer.cancel();
    this.timer = this.arm();
  }

  end(): void {
    this.timer.cancel();
    for (const step of this.forget) step();
  }

  private arm(): Timer {
    return this.clock.schedule(this.limitMs, () => this.abort('time'));
  }

  private follow(signal: AbortSignal | undefined, why: 'caller' | 'closed'): void {
    if (signal === undefined) return;
    if (signal.aborted) {
      this.abort(why);
      return;
    }
    const listener = () => this.abort(why);
    signal.addEventListener('abort', listener);
    this.forget.push(() => signal.removeEventListener('abort', listener));
  }

  private abort(why: 'time' | 'caller' | 'closed'): void {
    this.why ??= why;
    this.controller.abort();
  }
}
