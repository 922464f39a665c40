import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import { ManualClock } from '../../kernel/manual-clock.ts';
import { SeededRandom } from '../../kernel/random.ts';
import { keyGroupFor } from '../../state/key-group-hash.ts';
import type { KeyedProcessDefinition } from '../operators/keyed-process-operator.ts';
import { type Emitted, ProcessHarness } from './testing/process-harness.ts';

const MAX_PARALLELISM = 16;
type Domain = 'EVENT_TIME' | 'PROCESSING_TIME';

interface Command {
  readonly key: string | number | readonly [string, number];
  readonly op: 'register' | 'delete';
  readonly domain: Domain;
  readonly timeMs: number;
}

/** What a timer does besides being told: keys of some times set another, before or after it. */
function followUp(timeMs: number): number | undefined {
  if (timeMs % 5 === 0) return timeMs + 7;
  return timeMs % 7 === 3 ? timeMs - 1 : undefined;
}

const definition: KeyedProcessDefinition = {
  keySelectors: [(value) => (value as Command).key],
  create: () => ({
    open: undefined,
    elements: [
      (value, ctx, out) => {
        const { op, domain, timeMs } = value as Command;
        const timers = ctx.timerService();
        if (domain === 'EVENT_TIME') {
          if (op === 'register') timers.registerEventTimeTimer(timeMs);
          else timers.deleteEventTimeTimer(timeMs);
        } else if (op === 'register') timers.registerProcessingTimeTimer(timeMs);
        else timers.deleteProcessingTimeTimer(timeMs);
        const seen = ctx.getState<number>({ name: 'seen', defaultValue: 0 });
        seen.update((seen.value() ?? 0) + 1);
        out.collect(`record ${JSON.stringify(ctx.getCurrentKey())} ${ctx.timestamp()}`);
      },
    ],
    onTimer: (timeMs, ctx, out) => {
      const seen = ctx.getState<number>({ name: 'seen', defaultValue: 0 }).value();
      out.collect(`${ctx.timeDomain()} ${timeMs} ${JSON.stringify(ctx.getCurrentKey())} ${seen} ${ctx.timestamp()}`);
      const next = followUp(timeMs);
      if (next === undefined) return;
      if (ctx.timeDomain() === 'EVENT_TIME') ctx.timerService().registerEventTimeTimer(next);
      else ctx.timerService().registerProcessingTimeTimer(next);
    },
    close: undefined,
  }),
};

/** The same without buckets, state or subtasks: one list, searched each time. */
class Reference {
  readonly emitted: (Emitted<string> & { readonly keyGroup: number })[] = [];
  private timers: { key: Command['key']; name: string; keyGroup: number; domain: Domain; timeMs: number; n: number }[] =
    [];
  private readonly seen = new Map<string, number>();
  private n = 0;

  record(command: Command, timestampMs: number): void {
    const { key, op, domain, timeMs } = command;
    const name = JSON.stringify(key);
    if (op === 'register') this.register(key, domain, timeMs);
    else {
      this.timers = this.timers.filter(
        (timer) => timer.name !== name || timer.domain !== domain || timer.timeMs !== timeMs,
      );
    }
    this.seen.set(name, (this.seen.get(name) ?? 0) + 1);
    this.emit(key, `record ${name} ${timestampMs}`, timestampMs);
  }

  fire(domain: Domain, untilMs: number): void {
    for (;;) {
      const [due] = this.timers
        .filter((timer) => timer.domain === domain && timer.timeMs <= untilMs)
        .sort((a, b) => a.timeMs - b.timeMs || a.keyGroup - b.keyGroup || a.n - b.n);
      if (due === undefined) return;
      this.timers = this.timers.filter((timer) => timer !== due);
      const time = domain === 'EVENT_TIME' ? due.timeMs : undefined;
      const text = `${domain} ${due.timeMs} ${due.name} ${this.seen.get(due.name)} ${time}`;
      this.emit(due.key, text, time ?? Number.NaN);
      const next = followUp(due.timeMs);
      if (next !== undefined) this.register(due.key, domain, next);
    }
  }

  private register(key: Command['key'], domain: Domain, timeMs: number): void {
    const name = JSON.stringify(key);
    if (this.timers.some((t) => t.name === name && t.domain === domain && t.timeMs === timeMs)) return;
    this.timers.push({ key, name, keyGroup: keyGroupFor(key, MAX_PARALLELISM), domain, timeMs, n: this.n++ });
  }

  private emit(key: Command['key'], value: string, timestampMs: number): void {
    const keyGroup = keyGroupFor(key, MAX_PARALLELISM);
    // The harness has a flatMap that doubles everything.
    for (let i = 0; i < 2; i++) this.emitted.push({ value, timestampMs, keyGroup });
  }
}

function randomKey(random: SeededRandom): Command['key'] {
  const n = random.int(12);
  if (n < 4) return n;
  return n < 8 ? `key ${n}` : ['pair', n];
}

async function story(seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  const clock = new ManualClock();
  const objects = new MemoryObjectStore(clock);
  const reference = new Reference();
  const pauses = random.int(2) === 0;
  let attempt = 0;
  let checked = 0;
  let watermarkMs = Number.NEGATIVE_INFINITY;
  const start = async (parallelism: number, restore?: Parameters<typeof ProcessHarness.open>[0]['restore']) =>
    Promise.all(
      Array.from({ length: parallelism }, (_, subtaskIndex) =>
        ProcessHarness.open<string>({
          clock,
          objects,
          maxParallelism: MAX_PARALLELISM,
          parallelism,
          subtaskIndex,
          attempt: attempt++,
          restore,
          definition,
          shouldPause: () => pauses && random.int(3) === 0,
        }),
      ),
    );
  let subtasks = await start(1 + random.int(4));
  const check = () => {
    const expected = reference.emitted.slice(checked);
    checked = reference.emitted.length;
    for (const subtask of subtasks) {
      const { first, last } = subtask.range;
      const own = expected
        .filter(({ keyGroup }) => keyGroup >= first && keyGroup <= last)
        .map(({ value, timestampMs }) => ({ value, timestampMs }));
      expect(subtask.emitted.splice(0)).toEqual(own);
    }
  };
  for (let step = 0; step < 120; step++) {
    const what = random.int(20);
    if (what < 14) {
      const domain = random.int(3) === 0 ? 'PROCESSING_TIME' : 'EVENT_TIME';
      const base = domain === 'EVENT_TIME' ? 0 : clock.wallMs();
      const op = random.int(4) === 0 ? 'delete' : 'register';
      const command: Command = { key: randomKey(random), op, domain, timeMs: base + random.int(60) };
      const keyGroup = keyGroupFor(command.key, MAX_PARALLELISM);
      const owner = subtasks.find(({ range }) => keyGroup >= range.first && keyGroup <= range.last);
      owner?.record(command, step);
      reference.record(command, step);
    } else if (what < 17) {
      watermarkMs = Math.max(watermarkMs, random.int(80));
      for (const subtask of subtasks) subtask.watermark(watermarkMs);
      reference.fire('EVENT_TIME', watermarkMs);
    } else if (what < 19) {
      await clock.advance(random.int(20));
      for (const subtask of subtasks) subtask.fireIfDue();
      reference.fire('PROCESSING_TIME', clock.wallMs());
    } else {
      check();
      const handles = (await Promise.all(subtasks.map((subtask) => subtask.snapshot()))).flat();
      await Promise.all(subtasks.map((subtask) => subtask.close()));
      subtasks = await start(1 + random.int(5), handles);
      // What a restored task learns first; timers that were set too late fire with it, as they would have anyway.
      for (const subtask of subtasks) {
        subtask.fireIfDue();
        subtask.watermark(watermarkMs);
      }
      reference.fire('PROCESSING_TIME', clock.wallMs());
      reference.fire('EVENT_TIME', watermarkMs);
    }
    check();
  }
  for (const subtask of subtasks) subtask.watermark(Number.POSITIVE_INFINITY);
  reference.fire('EVENT_TIME', Number.POSITIVE_INFINITY);
  check();
  for (const subtask of subtasks) {
    // The watermark left last, behind everything that it set free.
    expect(subtask.signals.at(-1)?.signal).toBe(Number.POSITIVE_INFINITY);
    await subtask.close();
  }
  expect(clock.pending).toBe(0);
}

test.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])(
  'seed %i: timers fire as in a naive model, in its order, through snapshots and changes of parallelism',
  async (seed) => {
    // Timers that lie in the past fire with the next watermark or look at the clock, in both.
    await story(seed);
  },
);
