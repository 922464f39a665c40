import type {
  AggregatingState,
  AggregatingStateDescriptor,
  KeyedStateStore,
  ListState,
  ListStateDescriptor,
  MapState,
  MapStateDescriptor,
  ReducingState,
  ReducingStateDescriptor,
  ValueState,
  ValueStateName,
} from '../../api/state.ts';
import type { Key } from '../../api/functions.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { KeyedStateBackend } from '../../state/ports.ts';

/** Names that begin like this are the operator's own. */
const RESERVED_PREFIX = 'millrace.';

/** The states that a function asks for, on its operator's backend. */
export class KeyedStateAccess implements KeyedStateStore {
  /** Value states with a default; the backend remembers all others. */
  private readonly defaulted = new Map<
    string,
    { readonly defaultValue: unknown; readonly state: ValueState<unknown> }
  >();

  constructor(private readonly backend: KeyedStateBackend) {}

  getState<T>(descriptor: ValueStateName<T>): ValueState<T> {
    const { name, ttl, defaultValue } = described(descriptor, 'getState()');
    const state = this.backend.valueState<T>({ name, ttl });
    if (defaultValue === undefined) return state;
    const known = this.defaulted.get(name);
    if (known?.defaultValue === defaultValue) return known.state as ValueState<T>;
    const withDefault: ValueState<T> = {
      // A copy for each key: one that is changed in place must not change the others'.
      value: () => state.value() ?? structuredClone(defaultValue),
      update: (value) => state.update(value),
      clear: () => state.clear(),
    };
    this.defaulted.set(name, { defaultValue, state: withDefault as ValueState<unknown> });
    return withDefault;
  }

  getListState<T>(descriptor: ListStateDescriptor<T>): ListState<T> {
    const { name, ttl } = described(descriptor, 'getListState()', 'list');
    return this.backend.listState<T>({ name, ttl });
  }

  getMapState<K extends Key, V>(descriptor: MapStateDescriptor<K, V>): MapState<K, V> {
    const { name, ttl } = described(descriptor, 'getMapState()', 'map');
    return this.backend.mapState<K, V>({ name, ttl });
  }

  getReducingState<T>(descriptor: ReducingStateDescriptor<T>): ReducingState<T> {
    const { name, ttl, reduce } = described(descriptor, 'getReducingState()', 'reducing');
    return this.backend.reducingState<T>({ name, ttl, reduce });
  }

  getAggregatingState<IN, ACC, OUT>(descriptor: AggregatingStateDescriptor<IN, ACC, OUT>): AggregatingState<IN, OUT> {
    const { name, ttl, aggregate } = described(descriptor, 'getAggregatingState()', 'aggregating');
    return this.backend.aggregatingState<IN, ACC, OUT>({ name, ttl, aggregate });
  }
}

/** Programs are often plain JavaScript: what comes in is looked at. `kind` is undefined where plain objects will do. */
function described<D extends { readonly name: string }>(descriptor: D, what: string, kind?: string): D {
  const given = (descriptor as { readonly kind?: unknown } | undefined)?.kind;
  if (given !== kind && !(kind === undefined && given === 'value')) {
    const wanted = kind ?? 'value';
    throw new InvalidArgumentError(`${what} needs a descriptor of a ${wanted} state`, {
      hint: `Pass a new ${wanted[0]?.toUpperCase()}${wanted.slice(1)}StateDescriptor(name).`,
    });
  }
  checkStateName(descriptor.name);
  return descriptor;
}

export function checkStateName(name: unknown): string {
  if (typeof name === 'string' && name !== '' && !name.startsWith(RESERVED_PREFIX)) return name;
  throw new InvalidArgumentError(`"${String(name)}" cannot be the name of a state`, {
    hint: `A name is a text that does not begin with "${RESERVED_PREFIX}".`,
  });
}
