import {
  type BroadcastState,
  type CheckpointedFunction,
  type FunctionInitializationContext,
  isCheckpointed,
  type OperatorListState,
  type OperatorStateStore,
} from '../../api/checkpointed-function.ts';
import type { Key } from '../../api/functions.ts';
import type { KeyedStateStore, ListStateDescriptor, MapStateDescriptor } from '../../api/state.ts';
import type { OperatorStateHandle, OperatorStateMode } from '../../contracts/state-handles.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import { type CanonicalKey, canonicalKey } from '../../state/key-group-hash.ts';
import type { OperatorStateBackend } from '../../state/ports.ts';
import { operatorError } from '../operator-error.ts';
import { checkStateName } from './keyed-state-access.ts';
import type { OperatorContext } from './operator.ts';

/** Before the names that functions give: the others are the operators' own. */
const PREFIX = 'user/';
const NAME_CHARS_MAX = 190;

/** The part of restored handles whose names are those of functions, or of operators. */
export function handlesOf(handles: readonly OperatorStateHandle[], owner: 'function' | 'operator') {
  return handles.flatMap((handle): OperatorStateHandle[] => {
    const states = handle.states.filter(({ name }) => name.startsWith(PREFIX) === (owner === 'function'));
    return states.length === 0 ? [] : [{ ...handle, states }];
  });
}

/**
 * The operator state of an author's function, kept apart from the operator's own: it is fixed at the cut,
 * while an operator may add to its own until that is written.
 */
export class CheckpointedState implements OperatorStateStore {
  private readonly states = new Map<string, { readonly mode: OperatorStateMode; readonly state: Held }>();

  private constructor(
    private readonly context: OperatorContext,
    readonly backend: OperatorStateBackend,
    private readonly fn: Partial<CheckpointedFunction>,
  ) {}

  /** Undefined when the function has none and nothing of an earlier one was restored. */
  static async open(
    context: OperatorContext,
    fn: object,
    keyed?: KeyedStateStore,
  ): Promise<CheckpointedState | undefined> {
    const restored = handlesOf(context.restore?.snapshot?.operator ?? [], 'function');
    const checkpointed: Partial<CheckpointedFunction> = isCheckpointed(fn) ? fn : {};
    if (checkpointed.initializeState === undefined && restored.length === 0) return undefined;
    const { scope, signal, stateBackends, site } = context;
    let backend: OperatorStateBackend;
    try {
      backend = await stateBackends.createOperatorStateBackend({
        scope,
        restore: restored,
        ...(context.restore === undefined ? {} : { restoredCheckpointId: context.restore.checkpointId }),
        signal,
      });
    } catch (error) {
      throw operatorError(site, 'to restore its state', error);
    }
    const opened = new CheckpointedState(context, backend, checkpointed);
    opened.initialize(keyed);
    return opened;
  }

  /** Fixes what the function has: call it at the cut, before the backend's snapshot. */
  cut(checkpointId: number): void {
    let result: unknown;
    try {
      result = this.fn.snapshotState?.({ getCheckpointId: () => checkpointId });
      refusePromise(result, 'snapshotState()');
      for (const [name, { mode, state }] of this.states) this.backend.update(PREFIX + name, mode, state.items());
    } catch (error) {
      throw operatorError(this.context.site, 'to snapshot its state', error);
    }
  }

  getListState<T>(descriptor: ListStateDescriptor<T>): OperatorListState<T> {
    return this.list(descriptor, 'SPLIT', 'getListState()');
  }

  getUnionListState<T>(descriptor: ListStateDescriptor<T>): OperatorListState<T> {
    return this.list(descriptor, 'UNION', 'getUnionListState()');
  }

  getBroadcastState<K extends Key, V>(descriptor: MapStateDescriptor<K, V>): BroadcastState<K, V> {
    const name = checked(descriptor, 'map', 'getBroadcastState()');
    return this.state(name, 'BROADCAST', (entries) => new HeldMap<K, V>(entries as readonly (readonly [K, V])[]));
  }

  private list<T>(descriptor: ListStateDescriptor<T>, mode: OperatorStateMode, what: string): OperatorListState<T> {
    const name = checked(descriptor, 'list', what);
    return this.state(name, mode, (items) => new HeldList<T>(items as readonly T[]));
  }

  private state<S extends Held>(name: string, mode: OperatorStateMode, make: (items: readonly unknown[]) => S): S {
    const known = this.states.get(name);
    if (known === undefined) {
      const state = make(this.backend.restored(PREFIX + name, mode));
      this.states.set(name, { mode, state });
      return state;
    }
    if (known.mode !== mode) {
      throw new InvalidArgumentError(`the operator state '${name}' was asked for as ${known.mode} and as ${mode}`);
    }
    return known.state as S;
  }

  private initialize(keyed: KeyedStateStore | undefined): void {
    const { restore, site } = this.context;
    const context: FunctionInitializationContext = {
      isRestored: () => restore !== undefined,
      getRestoredCheckpointId: () => restore?.checkpointId,
      getOperatorStateStore: () => this,
      getKeyedStateStore: () => {
        if (keyed !== undefined) return keyed;
        throw new InvalidArgumentError('there is no keyed state here: the stream is not keyed', {
          hint: 'Use it in a process function behind keyBy().',
        });
      },
    };
    try {
      refusePromise(this.fn.initializeState?.(context), 'initializeState()');
    } catch (error) {
      throw operatorError(site, 'to initialise its state', error);
    }
  }
}

interface Held {
  /** What is written. */
  items(): readonly unknown[];
}

class HeldList<T> implements OperatorListState<T>, Held {
  private held: T[];

  constructor(items: readonly T[]) {
    this.held = [...items];
  }

  items(): readonly T[] {
    return this.held;
  }

  get(): readonly T[] {
    return this.held;
  }

  add(value: T): void {
    this.held.push(value);
  }

  addAll(values: Iterable<T>): void {
    for (const value of values) this.held.push(value);
  }

  update(values: Iterable<T>): void {
    this.held = [...values];
  }

  clear(): void {
    this.held = [];
  }
}

class HeldMap<K extends Key, V> implements BroadcastState<K, V>, Held {
  private readonly held = new Map<CanonicalKey, readonly [K, V]>();

  constructor(entries: Iterable<readonly [K, V]>) {
    this.putAll(entries);
  }

  items(): readonly unknown[] {
    return [...this.held.values()];
  }

  get(key: K): V | undefined {
    return this.held.get(canonicalKey(key))?.[1];
  }

  put(key: K, value: V): void {
    this.held.set(canonicalKey(key), [key, value]);
  }

  putAll(entries: Iterable<readonly [K, V]>): void {
    for (const [key, value] of entries) this.put(key, value);
  }

  remove(key: K): void {
    this.held.delete(canonicalKey(key));
  }

  contains(key: K): boolean {
    return this.held.has(canonicalKey(key));
  }

  entries(): Iterable<readonly [K, V]> {
    return this.held.values();
  }

  *keys(): Generator<K> {
    for (const [key] of this.held.values()) yield key;
  }

  *values(): Generator<V> {
    for (const [, value] of this.held.values()) yield value;
  }

  isEmpty(): boolean {
    return this.held.size === 0;
  }

  clear(): void {
    this.held.clear();
  }
}

function checked(
  descriptor: { readonly name: string; readonly kind: string; readonly ttl?: unknown },
  kind: string,
  what: string,
): string {
  if (descriptor?.kind !== kind) throw new InvalidArgumentError(`${what} needs a descriptor of a ${kind} state`);
  if (descriptor.ttl !== undefined) {
    throw new InvalidArgumentError(`the operator state '${descriptor.name}' cannot have a time-to-live`);
  }
  const name = checkStateName(descriptor.name);
  if (name.length > NAME_CHARS_MAX) {
    throw new InvalidArgumentError(`the name of an operator state has up to ${NAME_CHARS_MAX} characters: "${name}"`);
  }
  return name;
}

function refusePromise(result: unknown, what: string): void {
  if (!(result instanceof Promise)) return;
  result.catch(() => undefined); // refused: its own failure must not become an unhandled rejection
  throw new InvalidArgumentError(`${what} returned a promise; it must be synchronous`);
}
