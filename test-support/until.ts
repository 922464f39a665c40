import { setTimeout as wait } from 'node:timers/promises';

export interface UntilOptions {
  /** Default 30 s: a machine may be busy, and only what fails waits so long. */
  readonly timeoutMs?: number;
  /** Default 20 ms. */
  readonly everyMs?: number;
}

type Falsy = undefined | null | false | 0 | '';

/**
 * Waits until `probe` gives something truthy and returns it. Failing, the error says what was waited
 * for, how long, and what the probe gave or threw last: enough to understand a red test from its log.
 *
 * A probe that throws is asked again (the thing may not be up yet); one that hangs ends with the deadline.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<Exclude<T, Falsy>> {
  const { timeoutMs = 30_000, everyMs = 20 } = options;
  const deadlineMs = performance.now() + timeoutMs;
  const stopped = new AbortController();
  const timedOut = wait(timeoutMs, TIMED_OUT, { signal: stopped.signal });
  // Ended by `abort` below: the rejection is ours and means nothing.
  timedOut.catch(() => undefined);
  let last: Outcome = { kind: 'none' };
  try {
    do {
      const outcome = await Promise.race([attempt(probe), timedOut]);
      if (outcome === TIMED_OUT) break;
      if (outcome.kind === 'value' && outcome.value) return outcome.value as Exclude<T, Falsy>;
      last = outcome;
      await wait(everyMs);
    } while (performance.now() < deadlineMs);
  } finally {
    stopped.abort();
  }
  throw new Error(`waited ${timeoutMs} ms for ${what}; ${describe(last)}`, {
    cause: last.kind === 'error' ? last.error : undefined,
  });
}

const TIMED_OUT = Symbol('timed out');

type Outcome =
  | { readonly kind: 'none' }
  | { readonly kind: 'value'; readonly value: unknown }
  | { readonly kind: 'error'; readonly error: unknown };

async function attempt(probe: () => unknown): Promise<Outcome> {
  try {
    return { kind: 'value', value: await probe() };
  } catch (error) {
    return { kind: 'error', error };
  }
}

function describe(last: Outcome): string {
  switch (last.kind) {
    case 'none':
      return 'the probe never answered';
    case 'value':
      return `last value: ${show(last.value)}`;
    case 'error':
      return `last error: ${last.error instanceof Error ? last.error.message : String(last.error)}`;
  }
}

function show(value: unknown): string {
  try {
    return JSON.stringify(value, (_key, one) => (typeof one === 'bigint' ? `${one}n` : one)) ?? String(value);
  } catch {
    return String(value); // A cycle: better a poor message than none.
  }
}
