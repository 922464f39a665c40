import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ChainFactory } from '../chain.ts';
import { compiledChainFactory } from '../compile/compiled-chain.ts';
import { pushChainFactory } from '../push-chain.ts';
import { naiveRun } from './testing/naive-timed-chain.ts';
import {
  buildTimedChain,
  type TimedEvent,
  timedEvents,
  type TimedNodePlan,
  timedPlans,
} from './testing/random-timed-chains.ts';

interface Outcome {
  readonly seen: Record<string, readonly string[]>;
  readonly error: string | undefined;
}

async function play(
  factory: ChainFactory,
  plans: readonly TimedNodePlan[],
  events: readonly TimedEvent[],
  pauses: readonly boolean[],
): Promise<Outcome> {
  let asked = 0;
  const run = await buildTimedChain(plans, factory, () => pauses[asked++ % pauses.length] === true);
  const { chain } = run;
  const settle = () => {
    for (let turns = 0; chain.paused; turns++) {
      if (turns > 100_000) throw new Error('a resumption makes no progress');
      chain.resume();
    }
  };
  let error: string | undefined;
  try {
    for (const event of events) {
      if (event.kind === 'watermark') chain.signal(event.timeMs);
      else if (event.kind === 'periodic') chain.periodic(0);
      else {
        const times = Float64Array.from(event.timesMs);
        for (let next = 0; next < event.records.length; settle()) {
          next = chain.processTimed(event.records, times, next, event.records.length);
        }
      }
      settle();
    }
    chain.end();
    settle();
  } catch (thrown) {
    error = (thrown as Error).message;
  }
  await run.close();
  return { seen: Object.fromEntries(run.seen), error };
}

const pauses = fc.array(fc.boolean(), { minLength: 1, maxLength: 7 }).map((list) => [...list, false]);

/** Keys of one time fire in an order that only the operators know: between two signals order is not compared. */
function sorted(seen: Record<string, readonly string[]>): Record<string, readonly string[]> {
  return Object.fromEntries(
    Object.entries(seen).map(([name, lines]) => {
      const stretches: string[][] = [[]];
      for (const line of lines) {
        if (line.startsWith('~')) stretches.push([line], []);
        else stretches.at(-1)?.push(line);
      }
      return [name, stretches.flatMap((stretch) => stretch.sort())];
    }),
  );
}

test('chains with timers, windows, stamps and side outputs give the same compiled, interpreted and naive, wherever they pause', async () => {
  await fc.assert(
    fc.asyncProperty(timedPlans(false), timedEvents, pauses, async (plans, events, when) => {
      const compiled = await play(compiledChainFactory, plans, events, when);
      expect(compiled.error).toBe(undefined);
      expect(sorted(compiled.seen)).toEqual(sorted(naiveRun(plans, events).seen));
      expect(await play(pushChainFactory, plans, events, when)).toEqual(compiled);
    }),
    { numRuns: 150, seed: 23 },
  );
});

test('such chains fail at the same record with the same words', async () => {
  let failures = 0;
  await fc.assert(
    fc.asyncProperty(timedPlans(true), timedEvents, async (plans, events) => {
      const compiled = await play(compiledChainFactory, plans, events, [false]);
      expect(await play(pushChainFactory, plans, events, [false])).toEqual(compiled);
      expect(compiled.error === undefined).toBe(naiveRun(plans, events).error === undefined);
      if (compiled.error === undefined) return;
      failures++;
      expect(compiled.error).toMatch(
        /^operator "op\d" \(\d of \d in task\) threw RangeError: not \d+; record: \[ '.', \d+ \]/,
      );
    }),
    { numRuns: 150, seed: 29 },
  );
  expect(failures).toBeGreaterThan(20);
});
