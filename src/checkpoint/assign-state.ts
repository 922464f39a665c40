import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkInFlight } from './assign-in-flight.ts';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import type { JobGraph, JobVertex } from '../contracts/job-graph.ts';
import { type KeyGroupRange, keyGroupRange } from '../contracts/key-groups.ts';
import type {
  KeyedStateHandle,
  OperatorSnapshot,
  OperatorStateHandle,
  StateHandle,
} from '../contracts/state-handles.ts';
import type { OperatorId } from '../kernel/ids.ts';

/**
 * Who gets which state on restore. Pure: works on handles and offsets, never on the bytes of objects,
 * so a rescale of terabytes is decided in microseconds. Inline bytes are cut, because they travel along.
 *
 * Invariants:
 *   A1. Every key group with state goes to exactly one subtask, the one that owns it now.
 *   A2. Every item of a SPLIT list goes to exactly one subtask.
 *   A3. With unchanged parallelism every subtask gets back its own SPLIT items.
 */
export interface RestoreOptions {
  /** Drop state of operators that the graph does not have any more, instead of refusing. */
  readonly allowNonRestoredState: boolean;
}

type OperatorState = CheckpointMetadata['operators'][number];

/**
 * Throws `INVALID_ARGUMENT` when the checkpoint has state that `graph` has no place for: state of an
 * operator that is gone (unless allowed), or keyed state dealt out by another `maxParallelism`.
 */
export function checkRestorable(metadata: CheckpointMetadata, graph: JobGraph, options: RestoreOptions): void {
  checkInFlight(metadata, graph, options);
  const operators = new Map(graph.vertices.flatMap((vertex) => vertex.operators.map((op) => [op.id, vertex] as const)));
  for (const state of metadata.operators) {
    if (!hasState(state)) continue;
    const vertex = operators.get(state.operatorId);
    if (vertex !== undefined) checkMaxParallelism(metadata, state, vertex);
    else if (!options.allowNonRestoredState) throw homeless(metadata, state);
  }
}

/**
 * The state of each subtask of `vertex`, by subtask index: for every operator with state one entry.
 * Call `checkRestorable` once before: an operator that the graph lacks is no vertex's and not seen here,
 * so the options make no difference to one vertex.
 */
export function assignState(
  metadata: CheckpointMetadata,
  vertex: JobVertex,
  _options?: RestoreOptions,
): readonly (readonly OperatorSnapshot[])[] {
  const states = new Map(metadata.operators.map((state) => [state.operatorId, state]));
  const bySubtask = Array.from({ length: vertex.parallelism }, (): OperatorSnapshot[] => []);
  for (const { id } of vertex.operators) {
    const state = states.get(id);
    if (state === undefined || !hasState(state)) continue;
    checkMaxParallelism(metadata, state, vertex);
    for (const [index, snapshot] of assignOperator(state, vertex).entries()) {
      if (snapshot.keyed.length + snapshot.operator.length > 0) bySubtask[index]?.push(snapshot);
    }
  }
  return bySubtask;
}

/**
 * The operators of `vertex` of which the checkpoint knows nothing, because the job did not have them then. One
 * without state is known all the same: a source that had read everything must not begin again.
 */
export function newOperatorsOf(metadata: CheckpointMetadata, vertex: JobVertex): OperatorId[] {
  const known = new Set(metadata.operators.map(({ operatorId }) => operatorId));
  return vertex.operators.flatMap(({ id }) => (known.has(id) ? [] : [id]));
}

function assignOperator(state: OperatorState, vertex: JobVertex): OperatorSnapshot[] {
  const keyed = state.subtasks.flatMap((subtask) => subtask.keyed);
  const operator = splitOperatorState(
    state.subtasks.map((subtask) => subtask.operator),
    vertex.parallelism,
  );
  return operator.map((handles, index) => ({
    operatorId: state.operatorId,
    keyed: [...assignKeyedHandles(keyed, keyGroupRange(vertex.maxParallelism, vertex.parallelism, index))],
    operator: [...handles],
  }));
}

/** The parts of `handles` that lie in `range`; parts without bytes are left out. */
export function assignKeyedHandles(
  handles: readonly KeyedStateHandle[],
  range: KeyGroupRange,
): readonly KeyedStateHandle[] {
  const assigned: KeyedStateHandle[] = [];
  for (const { firstKeyGroup, lastKeyGroup, offsets, handle } of handles) {
    const first = Math.max(firstKeyGroup, range.first);
    const last = Math.min(lastKeyGroup, range.last);
    if (first > last) continue;
    const kept = offsets.slice(first - firstKeyGroup, last - firstKeyGroup + 2);
    if (kept[0] === kept.at(-1)) continue;
    const part = cut(handle, [kept]);
    assigned.push({ firstKeyGroup: first, lastKeyGroup: last, offsets: part.runs[0] ?? [], handle: part.handle });
  }
  return assigned;
}

/** Items `[from, to)` of one state of one handle. */
interface Run {
  readonly source: OperatorStateHandle;
  readonly state: OperatorStateHandle['states'][number];
  readonly from: number;
  readonly to: number;
}

/**
 * Deals out operator state over `parallelism` subtasks: SPLIT items in even, contiguous runs; UNION items
 * to everyone; BROADCAST as one copy for each. `bySubtask` holds the handles by the index they had.
 */
export function splitOperatorState(
  bySubtask: readonly (readonly OperatorStateHandle[])[],
  parallelism: number,
): readonly (readonly OperatorStateHandle[])[] {
  const all = bySubtask.map(wholeRuns);
  const sources = bySubtask.flat();
  const split = dealOut(all, parallelism);
  const union = all.flat().filter(({ state }) => state.mode === 'UNION');
  return Array.from({ length: parallelism }, (_, index) =>
    gather(sources, [...(split[index] ?? []), ...union, ...broadcastCopies(all, index)]),
  );
}

function wholeRuns(handles: readonly OperatorStateHandle[]): Run[] {
  return handles.flatMap((source) =>
    source.states.map((state) => ({ source, state, from: 0, to: state.offsets.length - 1 })),
  );
}

function dealOut(all: readonly (readonly Run[])[], parallelism: number): readonly (readonly Run[])[] {
  const splitRuns = all.map((runs) => runs.filter(({ state }) => state.mode === 'SPLIT'));
  if (splitRuns.length === parallelism) return splitRuns;
  const dealt = Array.from({ length: parallelism }, (): Run[] => []);
  for (const runs of groupBy(splitRuns.flat(), ({ state }) => state.name).values()) {
    const total = runs.reduce((sum, { from, to }) => sum + to - from, 0);
    let before = 0;
    for (const run of runs) {
      const items = run.to - run.from;
      for (const [index, share] of dealt.entries()) {
        // The subtask's items are numbered [total * i / p, total * (i + 1) / p) over all runs.
        const from = Math.max(before, Math.floor((total * index) / parallelism));
        const to = Math.min(before + items, Math.floor((total * (index + 1)) / parallelism));
        if (from < to) share.push({ ...run, from: run.from + from - before, to: run.from + to - before });
      }
      before += items;
    }
  }
  return dealt;
}

/** Every old subtask holds the same copy; readers are spread over the copies. */
function broadcastCopies(all: readonly (readonly Run[])[], index: number): readonly Run[] {
  const copies = all.map((runs) => runs.filter(({ state }) => state.mode === 'BROADCAST'));
  const names = new Set(copies.flat().map(({ state }) => state.name));
  return [...names].flatMap((name) => {
    const holders = copies
      .map((runs) => runs.filter(({ state }) => state.name === name))
      .filter((runs) => runs.length > 0);
    return holders[index % holders.length] ?? [];
  });
}

/** One handle for each source that runs come from, in the order of the sources: items of a list keep their order. */
function gather(sources: readonly OperatorStateHandle[], runs: readonly Run[]): readonly OperatorStateHandle[] {
  const handles: OperatorStateHandle[] = [];
  const bySource = groupBy(
    runs.filter(({ from, to }) => from < to),
    (run) => run.source,
  );
  for (const source of sources) {
    const taken = bySource.get(source);
    if (taken === undefined) continue;
    const { runs: offsets, handle } = cut(
      source.handle,
      taken.map(({ state, from, to }) => state.offsets.slice(from, to + 1)),
    );
    const states = taken.map(({ state }, i) => ({ name: state.name, mode: state.mode, offsets: offsets[i] ?? [] }));
    handles.push({ states, handle });
  }
  return handles;
}

/**
 * Restricts a handle to the bytes that some runs of offsets span. An object stays as it is, and so do
 * the offsets; inline bytes shrink to the spans, and the offsets move with them.
 */
function cut(
  handle: StateHandle,
  runs: readonly (readonly number[])[],
): { readonly runs: readonly number[][]; readonly handle: StateHandle } {
  if (handle.kind === 'object') return { runs: runs.map((run) => [...run]), handle };
  const moved: number[][] = [];
  const parts: Uint8Array[] = [];
  let size = 0;
  for (const run of runs) {
    const start = run[0] ?? 0;
    const part = handle.bytes.subarray(start, run.at(-1) ?? start);
    const shift = size - start;
    moved.push(run.map((offset) => offset + shift));
    parts.push(part);
    size += part.length;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { runs: moved, handle: { kind: 'inline', bytes } };
}

function hasState({ subtasks }: OperatorState): boolean {
  return subtasks.some(({ keyed, operator }) => keyed.length > 0 || operator.length > 0);
}

function checkMaxParallelism(metadata: CheckpointMetadata, state: OperatorState, vertex: JobVertex): void {
  if (state.maxParallelism === vertex.maxParallelism) return;
  // Lists of items are dealt out anew whatever the numbers are; only keyed state is bound to them.
  if (state.subtasks.every(({ keyed }) => keyed.length === 0)) return;
  throw new InvalidArgumentError(
    `checkpoint ${metadata.checkpointId} of job ${metadata.jobId} has keyed state of operator ${state.operatorId} ` +
      `in ${state.maxParallelism} key groups, but vertex '${vertex.name}' has maxParallelism ${vertex.maxParallelism}`,
    { hint: `call setMaxParallelism(${state.maxParallelism}); it cannot change while keyed state is kept` },
  );
}

function homeless(metadata: CheckpointMetadata, state: OperatorState): InvalidArgumentError {
  return new InvalidArgumentError(
    `checkpoint ${metadata.checkpointId} of job ${metadata.jobId} has state of operator ${state.operatorId}, ` +
      'which the job does not have any more',
    { hint: 'give operators with state a uid that stays the same, or allow non-restored state to drop it' },
  );
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
