import type { KeyedStateBackend, ValueState } from '../../state/ports.ts';
import { type CanonicalKey, canonicalKey, keyGroupForCanonical } from '../../state/key-group-hash.ts';
import { admit, cloneValue } from '../../state/state-value.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import { type DueTimer, TimerBuckets } from './timer-buckets.ts';

/** What the state holds of one key. */
interface TimersOfKey {
  readonly key: unknown;
  /** Time, number of registration, time, number of registration, … */
  readonly at: number[];
}

/**
 * The timers of one kind of one operator. They are kept twice: in buckets, to find those that are due,
 * and key by key in the keyed state, which makes them part of every snapshot and brings each to the
 * subtask that owns its key after a change of parallelism.
 *
 *   K1. Buckets and state hold the same timers whenever a snapshot may be taken.
 *   K2. Numbers of registration rise within a key group for ever, so that the order of timers of one
 *       time outlives restores.
 */
export class KeyedTimers {
  private readonly buckets = new TimerBuckets();
  private readonly state: ValueState<TimersOfKey>;
  private nextNumber = 0;

  /** Reads what the state holds: the backend has just been restored. */
  constructor(
    private readonly backend: KeyedStateBackend,
    private readonly maxParallelism: number,
    name: string,
  ) {
    this.state = backend.valueState(name);
    const restored: { readonly number: number; readonly timeMs: number; readonly key: unknown }[] = [];
    backend.forEachValue<TimersOfKey>(name, ({ key, at }) => {
      for (let i = 0; i + 1 < at.length; i += 2) {
        restored.push({ key, timeMs: at[i] as number, number: at[i + 1] as number });
      }
    });
    restored.sort((a, b) => a.number - b.number);
    for (const { key, timeMs } of restored) this.addToBucket(key, canonicalKey(key), timeMs);
    this.nextNumber = (restored.at(-1)?.number ?? -1) + 1; // K2
  }

  get size(): number {
    return this.buckets.size;
  }

  get nextMs(): number {
    return this.buckets.nextMs;
  }

  /** For the backend's current key, which is `key`. */
  register(key: unknown, timeMs: number): void {
    checkTime(timeMs);
    const canonical = canonicalKey(key);
    if (this.buckets.has(timeMs, canonical)) return;
    const held = this.state.value();
    const own = held?.key ?? cloneValue(admit(key));
    const number = this.nextNumber++;
    if (held === undefined) this.state.update({ key: own, at: [timeMs, number] });
    else {
      held.at.push(timeMs, number);
      this.state.update(held);
    }
    this.addToBucket(own, canonicalKey(own), timeMs);
  }

  delete(key: unknown, timeMs: number): void {
    checkTime(timeMs);
    if (this.buckets.delete(timeMs, canonicalKey(key))) this.forget(timeMs);
  }

  /** Takes out the next timer due at `untilMs` or before. Its key is the backend's current key then. */
  pop(untilMs: number): DueTimer | undefined {
    const due = this.buckets.pop(untilMs);
    if (due === undefined) return undefined;
    this.backend.setCurrentKey(due.timer.key);
    this.forget(due.timeMs);
    return due;
  }

  private addToBucket(key: unknown, canonical: CanonicalKey, timeMs: number): void {
    this.buckets.add(timeMs, { key, canonical, keyGroup: keyGroupForCanonical(canonical, this.maxParallelism) });
  }

  private forget(timeMs: number): void {
    const held = this.state.value();
    if (held === undefined) return;
    const { at } = held;
    for (let i = 0; i < at.length; i += 2) {
      if (at[i] !== timeMs) continue;
      at.splice(i, 2);
      break;
    }
    if (at.length === 0) this.state.clear();
    else this.state.update(held);
  }
}

function checkTime(timeMs: number): void {
  if (Number.isSafeInteger(timeMs)) return;
  throw new InvalidArgumentError(`the time of a timer is a whole number of milliseconds, not ${String(timeMs)}`);
}
