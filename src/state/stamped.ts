/**
 * A value with the time of its last use, as states with a time-to-live keep it: in cells, in rows on
 * disk and in snapshots. It says of itself what it is, so state written with and without a
 * time-to-live restores into either.
 *
 * Never changed in place: a refreshed time is a new `Stamped`, so a pending snapshot may hold the old one.
 */
export class Stamped {
  constructor(
    readonly value: unknown,
    /** Processing time, milliseconds since the epoch. */
    readonly stampMs: number,
  ) {}
}

/** What of a state with a time-to-live is expired at one moment. */
export interface Expiry {
  /** The newest stamp that counts as expired. One in the future (the clock was set back) never does. */
  readonly limitMs: number;
  /** The stamp of values without one: they were kept before the state had a time-to-live. */
  readonly unstampedMs: number;
}

/** `expiry` is undefined for states whose values live for ever. */
export function isExpired(value: unknown, expiry: Expiry | undefined): boolean {
  return expiry !== undefined && stampOf(value, expiry) <= expiry.limitMs;
}

/** What a snapshot writes for a value; {@link EXPIRED} for nothing. */
export function agedRow(value: unknown, expiry: Expiry | undefined): unknown {
  if (expiry === undefined) return value;
  if (isExpired(value, expiry)) return EXPIRED;
  return value instanceof Stamped ? value : new Stamped(value, expiry.unstampedMs);
}

export const EXPIRED = Symbol('expired');

function stampOf(value: unknown, expiry: Expiry): number {
  return value instanceof Stamped ? value.stampMs : expiry.unstampedMs;
}

/** A state's time-to-live, with the clock it goes by. */
export class Aging {
  constructor(
    readonly ttlMs: number,
    private readonly nowMs: () => number,
    private readonly unstampedMs: number = nowMs(),
  ) {}

  expiry(): Expiry {
    return { limitMs: this.nowMs() - this.ttlMs, unstampedMs: this.unstampedMs };
  }

  stamp(value: unknown): Stamped {
    return new Stamped(value, this.nowMs());
  }
}
