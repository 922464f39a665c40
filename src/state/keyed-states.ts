import { InvalidArgumentError } from '../kernel/errors.ts';
import { ABSENT, type ListCells, type MapCells, type SingleCells, type StateKind } from './cells.ts';
import { decodeCanonicalKey } from './decode-key.ts';
import { canonicalKey } from './key-group-hash.ts';
import type {
  AggregatingState,
  AggregatingStateDescription,
  ListState,
  ListStateDescription,
  MapState,
  MapStateDescription,
  ReducingState,
  ReducingStateDescription,
  TimeToLive,
  ValueState,
  ValueStateDescription,
} from './ports.ts';
import { Aging } from './stamped.ts';
import { admit } from './state-value.ts';
import {
  TtlListCells,
  TtlMapCells,
  type TtlRule,
  TtlSingleCells,
  ttlRule,
  UnstampedListCells,
  UnstampedMapCells,
  UnstampedSingleCells,
} from './ttl-cells.ts';

/** What a backend has for one state. */
export interface CellsFactory {
  /**
   * Prepares the state of that name. Throws `CONFLICT` when it is of another kind. `aging` lets the backend
   * leave out what has expired. Says what was restored: values with a stamp, values without.
   */
  declare(
    name: string,
    kind: StateKind,
    aging: Aging | undefined,
  ): { readonly sawStamps: boolean; readonly sawUnstamped: boolean };
  single(name: string): SingleCells;
  list(name: string): ListCells;
  map(name: string): MapCells;
}

const NAME_CHARS_MAX = 200;

/** The states that users hold, made once for each name, over the cells of any backend. */
export class KeyedStates {
  private readonly states = new Map<string, { readonly kind: StateKind; readonly state: unknown }>();

  constructor(
    private readonly cells: CellsFactory,
    private readonly nowMs: () => number,
    /** A state has a time-to-live that what was restored of it does not know. */
    private readonly onNewTtl: () => void,
  ) {}

  value<T>(description: string | ValueStateDescription): ValueState<T> {
    return this.get('value', description, (name, rule, sawStamps) => {
      const cells = this.single(name, rule, sawStamps);
      return (isValueState(cells) ? cells : new CellsValueState(cells)) as ValueState<T>;
    });
  }

  list<T>(description: string | ListStateDescription): ListState<T> {
    return this.get('list', description, (name, rule, sawStamps) => {
      const cells = this.cells.list(name);
      if (rule !== undefined) return new CellsListState<T>(new TtlListCells(cells, rule));
      return new CellsListState<T>(sawStamps ? new UnstampedListCells(cells) : cells);
    });
  }

  map<K, V>(description: string | MapStateDescription): MapState<K, V> {
    return this.get('map', description, (name, rule, sawStamps) => {
      const cells = this.cells.map(name);
      if (rule !== undefined) return new CellsMapState<K, V>(new TtlMapCells(cells, rule));
      return new CellsMapState<K, V>(sawStamps ? new UnstampedMapCells(cells) : cells);
    });
  }

  reducing<T>(description: ReducingStateDescription<T>): ReducingState<T> {
    return this.get('reducing', description, (name, rule, sawStamps) => {
      return new CellsReducingState<T>(this.single(name, rule, sawStamps), description.reduce);
    });
  }

  aggregating<IN, ACC, OUT>(description: AggregatingStateDescription<IN, ACC, OUT>): AggregatingState<IN, OUT> {
    return this.get('aggregating', description, (name, rule, sawStamps) => {
      return new CellsAggregatingState<IN, ACC, OUT>(this.single(name, rule, sawStamps), description.aggregate);
    });
  }

  clear(): void {
    this.states.clear();
  }

  private single(name: string, rule: TtlRule | undefined, sawStamps: boolean): SingleCells {
    const cells = this.cells.single(name);
    if (rule !== undefined) return new TtlSingleCells(cells, rule);
    return sawStamps ? new UnstampedSingleCells(cells) : cells;
  }

  private get<S>(
    kind: StateKind,
    description: string | { readonly name: string; readonly ttl?: TimeToLive | undefined },
    make: (name: string, rule: TtlRule | undefined, sawStamps: boolean) => S,
  ): S {
    const { name, ttl } = typeof description === 'string' ? { name: description, ttl: undefined } : description;
    const known = this.states.get(name);
    if (known?.kind === kind) return known.state as S;
    checkName(name);
    const aging = ttl === undefined ? undefined : new Aging(checkTtl(name, ttl), this.nowMs);
    const { sawStamps, sawUnstamped } = this.cells.declare(name, kind, aging);
    // Written anew, it gets stamps; referred to, it would get younger with each restore.
    if (aging !== undefined && sawUnstamped) this.onNewTtl();
    const state = make(name, aging === undefined ? undefined : ttlRule(aging, ttl as TimeToLive), sawStamps);
    this.states.set(name, { kind, state });
    return state;
  }
}

function checkName(name: string): void {
  if (typeof name === 'string' && name.length > 0 && name.length <= NAME_CHARS_MAX) return;
  throw new InvalidArgumentError(
    `a state's name must be 1 to ${NAME_CHARS_MAX} characters, not ${JSON.stringify(name)}`,
  );
}

function checkTtl(name: string, { ttlMs, updateType, visibility }: TimeToLive): number {
  if (!(ttlMs > 0) || !Number.isFinite(ttlMs)) {
    throw new InvalidArgumentError(
      `the time-to-live of state '${name}' must be a positive number of milliseconds, not ${ttlMs}`,
    );
  }
  const updateTypes: readonly unknown[] = [undefined, 'onCreateAndWrite', 'onReadAndWrite'];
  const visibilities: readonly unknown[] = [undefined, 'neverReturnExpired', 'returnExpiredIfNotCleanedUp'];
  if (!updateTypes.includes(updateType)) {
    throw new InvalidArgumentError(`the time-to-live of state '${name}' has the unknown update type '${updateType}'`);
  }
  if (!visibilities.includes(visibility)) {
    throw new InvalidArgumentError(`the time-to-live of state '${name}' has the unknown visibility '${visibility}'`);
  }
  return ttlMs;
}

/** Cells that are a value state themselves spare a call for each use. */
function isValueState(cells: SingleCells): cells is SingleCells & ValueState<unknown> {
  return 'value' in cells && 'update' in cells && 'clear' in cells;
}

class CellsValueState implements ValueState<unknown> {
  constructor(private readonly cells: SingleCells) {}

  value(): unknown {
    return this.cells.get();
  }

  update(value: unknown): void {
    if (value === undefined) this.cells.remove();
    else this.cells.set(admit(value));
  }

  clear(): void {
    this.cells.remove();
  }
}

const NONE: readonly never[] = [];

class CellsListState<T> implements ListState<T> {
  constructor(private readonly cells: ListCells) {}

  get(): readonly T[] {
    return (this.cells.get() as readonly T[] | undefined) ?? NONE;
  }

  add(value: T): void {
    this.cells.append([admit(value)]);
  }

  addAll(values: Iterable<T>): void {
    this.cells.append(Array.from(values, admit));
  }

  update(values: Iterable<T>): void {
    this.cells.set(Array.from(values, admit));
  }

  clear(): void {
    this.cells.remove();
  }
}

class CellsMapState<K, V> implements MapState<K, V> {
  constructor(private readonly cells: MapCells) {}

  get(key: K): V | undefined {
    const value = this.cells.get(canonicalKey(key));
    return value === ABSENT ? undefined : (value as V);
  }

  put(key: K, value: V): void {
    this.cells.set(canonicalKey(key), admit(value));
  }

  putAll(entries: Iterable<readonly [K, V]>): void {
    for (const [key, value] of entries) this.put(key, value);
  }

  remove(key: K): void {
    this.cells.delete(canonicalKey(key));
  }

  contains(key: K): boolean {
    return this.cells.get(canonicalKey(key)) !== ABSENT;
  }

  *entries(): Generator<readonly [K, V]> {
    for (const [key, value] of this.cells.entries()) yield [decodeCanonicalKey(key) as K, value as V];
  }

  *keys(): Generator<K> {
    for (const [key] of this.cells.entries()) yield decodeCanonicalKey(key) as K;
  }

  *values(): Generator<V> {
    for (const [, value] of this.cells.entries()) yield value as V;
  }

  isEmpty(): boolean {
    return this.cells.isEmpty();
  }

  clear(): void {
    this.cells.clear();
  }
}

class CellsReducingState<T> implements ReducingState<T> {
  constructor(
    private readonly cells: SingleCells,
    private readonly reduce: (current: T, value: T) => T,
  ) {}

  get(): T | undefined {
    return this.cells.get() as T | undefined;
  }

  add(value: T): void {
    const current = this.cells.get() as T | undefined;
    const next = current === undefined ? value : this.reduce(current, value);
    if (next === undefined) this.cells.remove();
    else this.cells.set(admit(next));
  }

  clear(): void {
    this.cells.remove();
  }
}

class CellsAggregatingState<IN, ACC, OUT> implements AggregatingState<IN, OUT> {
  constructor(
    private readonly cells: SingleCells,
    private readonly aggregate: AggregatingStateDescription<IN, ACC, OUT>['aggregate'],
  ) {}

  get(): OUT | undefined {
    const accumulator = this.cells.get() as ACC | undefined;
    return accumulator === undefined ? undefined : this.aggregate.getResult(accumulator);
  }

  add(value: IN): void {
    const current = this.cells.get() as ACC | undefined;
    const next = this.aggregate.add(value, current === undefined ? this.aggregate.createAccumulator() : current);
    if (next === undefined) {
      throw new InvalidArgumentError("an aggregating state's add() returned undefined instead of an accumulator", {
        hint: 'return the accumulator, changed or new',
      });
    }
    this.cells.set(admit(next));
  }

  clear(): void {
    this.cells.remove();
  }
}
