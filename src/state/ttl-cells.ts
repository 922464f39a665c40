import { ABSENT, type ListCells, type MapCells, type SingleCells } from './cells.ts';
import type { CanonicalKey } from './key-group-hash.ts';
import type { TimeToLive } from './ports.ts';
import { type Aging, isExpired, Stamped } from './stamped.ts';

/**
 * Time-to-live over any backend's cells: values go in with a stamp, and come out without it, or not at
 * all. What is met expired is removed then and there, also when it is given out once more.
 */
export interface TtlRule {
  readonly aging: Aging;
  readonly refreshOnRead: boolean;
  readonly returnExpired: boolean;
}

export function ttlRule(aging: Aging, { updateType, visibility }: TimeToLive): TtlRule {
  return {
    aging,
    refreshOnRead: updateType === 'onReadAndWrite',
    returnExpired: visibility === 'returnExpiredIfNotCleanedUp',
  };
}

/** Values of before the state had a time-to-live carry no stamp; of after it had one, they may. */
export function unstamped(value: unknown): unknown {
  return value instanceof Stamped ? value.value : value;
}

export class TtlSingleCells implements SingleCells {
  constructor(
    private readonly cells: SingleCells,
    private readonly rule: TtlRule,
  ) {}

  get(): unknown {
    const stored = this.cells.get();
    if (stored === undefined) return undefined;
    const value = unstamped(stored);
    const { aging, refreshOnRead, returnExpired } = this.rule;
    if (isExpired(stored, aging.expiry())) {
      this.cells.remove();
      return returnExpired ? value : undefined;
    }
    if (refreshOnRead) this.cells.set(aging.stamp(value));
    return value;
  }

  set(value: unknown): void {
    this.cells.set(this.rule.aging.stamp(value));
  }

  remove(): void {
    this.cells.remove();
  }
}

export class TtlListCells implements ListCells {
  constructor(
    private readonly cells: ListCells,
    private readonly rule: TtlRule,
  ) {}

  get(): readonly unknown[] | undefined {
    const stored = this.cells.get();
    if (stored === undefined) return undefined;
    const { aging, refreshOnRead, returnExpired } = this.rule;
    const expiry = aging.expiry();
    const alive = stored.filter((item) => !isExpired(item, expiry));
    const shown = (returnExpired ? stored : alive).map(unstamped);
    if (refreshOnRead) this.cells.set(alive.map((item) => aging.stamp(unstamped(item))));
    else if (alive.length < stored.length) this.cells.set(alive);
    return shown.length === 0 ? undefined : shown;
  }

  append(items: readonly unknown[]): void {
    this.cells.append(items.map((item) => this.rule.aging.stamp(item)));
  }

  set(items: unknown[]): void {
    this.cells.set(items.map((item) => this.rule.aging.stamp(item)));
  }

  remove(): void {
    this.cells.remove();
  }
}

export class TtlMapCells implements MapCells {
  constructor(
    private readonly cells: MapCells,
    private readonly rule: TtlRule,
  ) {}

  get(mapKey: CanonicalKey): unknown {
    return this.open(mapKey, this.cells.get(mapKey));
  }

  set(mapKey: CanonicalKey, value: unknown): void {
    this.cells.set(mapKey, this.rule.aging.stamp(value));
  }

  delete(mapKey: CanonicalKey): void {
    this.cells.delete(mapKey);
  }

  *entries(): Generator<readonly [CanonicalKey, unknown]> {
    for (const [mapKey, stored] of this.cells.entries()) {
      const value = this.open(mapKey, stored);
      if (value !== ABSENT) yield [mapKey, value];
    }
  }

  isEmpty(): boolean {
    if (this.rule.returnExpired) return this.cells.isEmpty();
    const expiry = this.rule.aging.expiry();
    for (const [, stored] of this.cells.entries()) if (!isExpired(stored, expiry)) return false;
    return true;
  }

  clear(): void {
    this.cells.clear();
  }

  private open(mapKey: CanonicalKey, stored: unknown): unknown {
    if (stored === ABSENT) return ABSENT;
    const value = unstamped(stored);
    const { aging, refreshOnRead, returnExpired } = this.rule;
    if (isExpired(stored, aging.expiry())) {
      this.cells.delete(mapKey);
      return returnExpired ? value : ABSENT;
    }
    if (refreshOnRead) this.cells.set(mapKey, aging.stamp(value));
    return value;
  }
}

/** A state that had a time-to-live when it was written and has none now. */
export class UnstampedSingleCells implements SingleCells {
  constructor(private readonly cells: SingleCells) {}

  get(): unknown {
    return unstamped(this.cells.get());
  }

  set(value: unknown): void {
    this.cells.set(value);
  }

  remove(): void {
    this.cells.remove();
  }
}

/** As {@link UnstampedSingleCells}. */
export class UnstampedListCells implements ListCells {
  constructor(private readonly cells: ListCells) {}

  get(): readonly unknown[] | undefined {
    return this.cells.get()?.map(unstamped);
  }

  append(items: readonly unknown[]): void {
    this.cells.append(items);
  }

  set(items: unknown[]): void {
    this.cells.set(items);
  }

  remove(): void {
    this.cells.remove();
  }
}

/** As {@link UnstampedSingleCells}. */
export class UnstampedMapCells implements MapCells {
  constructor(private readonly cells: MapCells) {}

  get(mapKey: CanonicalKey): unknown {
    return unstamped(this.cells.get(mapKey));
  }

  set(mapKey: CanonicalKey, value: unknown): void {
    this.cells.set(mapKey, value);
  }

  delete(mapKey: CanonicalKey): void {
    this.cells.delete(mapKey);
  }

  *entries(): Generator<readonly [CanonicalKey, unknown]> {
    for (const [mapKey, value] of this.cells.entries()) yield [mapKey, unstamped(value)];
  }

  isEmpty(): boolean {
    return this.cells.isEmpty();
  }

  clear(): void {
    this.cells.clear();
  }
}
