import { checkNumber, type Pair, parentsOf, type TimedEvent, type TimedNodePlan } from './random-timed-chains.ts';

/** What a chain with time means, in the fewest words: no pauses, Maps for state, all timers looked at each time. */
export function naiveRun(
  plans: readonly TimedNodePlan[],
  events: readonly TimedEvent[],
): { readonly seen: Record<string, readonly string[]>; readonly error: string | undefined } {
  const seen: Record<string, string[]> = {};
  const parents = parentsOf(plans);
  const children = (node: number) => parents.flatMap((parent, i) => (parent === node ? [i + 1] : []));
  for (let node = 0; node <= plans.length; node++) {
    seen[node] = [];
    if (node > 0) seen[`${node} side`] = [];
  }
  const states = plans.map(() => ({
    sums: new Map<string, number>(),
    /** Time -> keys with a timer, or start of a window -> sums. */
    timers: new Map<number, Map<string, number>>(),
    watermarkMs: -Infinity,
    greatestMs: -Infinity,
    emittedMs: -Infinity,
  }));

  const emit = (node: number, [key, n]: Pair, timeMs: number) => {
    for (const child of children(node)) visit(child, [key, n], timeMs);
    seen[node]?.push(`${key} ${n} @${timeMs}`);
  };
  const side = (node: number, [key, n]: Pair, timeMs: number) => seen[`${node} side`]?.push(`${key} ${n} @${timeMs}`);

  const visit = (node: number, [key, n]: Pair, timeMs: number): void => {
    const { operator, throwsAt } = plans[node - 1] as TimedNodePlan;
    const state = states[node - 1] as (typeof states)[number];
    if (operator.kind === 'window') {
      const start = Math.floor(timeMs / operator.sizeMs) * operator.sizeMs;
      if (start + operator.sizeMs - 1 <= state.watermarkMs) {
        side(node, [key, n], timeMs);
        return;
      }
      checkNumber(n, throwsAt);
      const pane = state.timers.get(start) ?? new Map<string, number>();
      state.timers.set(start, pane.set(key, (pane.get(key) ?? 0) + n));
      return;
    }
    checkNumber(n, throwsAt);
    switch (operator.kind) {
      case 'map':
        emit(node, [key, n + operator.add], timeMs);
        return;
      case 'filter':
        if (n % operator.modulo !== 0) emit(node, [key, n], timeMs);
        return;
      case 'flatMap':
        for (let i = 0; i < operator.times; i++) emit(node, [key, n + i], timeMs);
        return;
      case 'sum':
        state.sums.set(key, (state.sums.get(key) ?? 0) + n);
        emit(node, [key, state.sums.get(key) as number], timeMs);
        return;
      case 'stamp': {
        const stamped = timeMs + operator.addMs;
        state.greatestMs = Math.max(state.greatestMs, stamped);
        emit(node, [key, n], stamped);
        return;
      }
      case 'timers': {
        state.sums.set(key, (state.sums.get(key) ?? 0) + n);
        if (n % 3 === 0) side(node, [key, n], timeMs);
        const due = timeMs - (timeMs % operator.everyMs) + operator.everyMs;
        const keys = state.timers.get(due) ?? new Map<string, number>();
        state.timers.set(due, keys.set(key, 0));
      }
    }
  };

  const advance = (node: number, watermarkMs: number): void => {
    if (node > 0) {
      const { operator } = plans[node - 1] as TimedNodePlan;
      const state = states[node - 1] as (typeof states)[number];
      if (operator.kind === 'stamp' && watermarkMs !== Infinity) return;
      state.watermarkMs = Math.max(state.watermarkMs, watermarkMs);
      for (const time of [...state.timers.keys()].sort((a, b) => a - b)) {
        const lastMs = operator.kind === 'window' ? time + operator.sizeMs - 1 : time;
        if (lastMs > watermarkMs) continue;
        for (const [key, sum] of state.timers.get(time) ?? []) {
          if (operator.kind === 'window') emit(node, [key, sum], lastMs);
          else {
            emit(node, [key, state.sums.get(key) ?? 0], time);
            state.sums.delete(key);
          }
        }
        state.timers.delete(time);
      }
    }
    pass(node, watermarkMs);
  };
  const pass = (node: number, watermarkMs: number) => {
    seen[node]?.push(`~ ${watermarkMs}`);
    if (node > 0) seen[`${node} side`]?.push(`~ ${watermarkMs}`);
    for (const child of children(node)) advance(child, watermarkMs);
  };

  let error: string | undefined;
  try {
    for (const event of events) {
      if (event.kind === 'watermark') advance(0, event.timeMs);
      else if (event.kind === 'records') {
        event.records.forEach((pair, i) => void emit(0, pair, event.timesMs[i] as number));
      } else {
        // All are asked before any signal goes on its way.
        const said: (readonly [node: number, watermarkMs: number])[] = [];
        plans.forEach(({ operator }, i) => {
          const state = states[i] as (typeof states)[number];
          if (operator.kind !== 'stamp') return;
          const watermarkMs = state.greatestMs - operator.lateMs - 1;
          if (watermarkMs <= state.emittedMs) return;
          state.emittedMs = watermarkMs;
          said.push([i + 1, watermarkMs]);
        });
        for (const [node, watermarkMs] of said) pass(node, watermarkMs);
      }
    }
    advance(0, Infinity);
  } catch (thrown) {
    error = (thrown as Error).message;
  }
  return { seen, error };
}
