import type { Benchmark } from './lib/benchmark.ts';
import type { BenchJob } from './lib/bench-jobs.ts';
import { JobSlots } from './lib/job-slots.ts';
import { type Measurement, measureRounds, speedup } from './lib/rounds.ts';

const LINES = 100_000;
const VOCABULARY = 20_000;
const WORDS = LINES * 10;

const job = (lines: number, parallelism: number): BenchJob => ({
  job: 'word count of lines',
  text: { lines, vocabulary: VOCABULARY },
  parallelism,
});

/**
 * The word count in two slots, each on its thread, every second word crossing over to the other: against
 * two jobs of one slot that count half of the text each, which is what two cores can give at most.
 */
export const shuffleBench: Benchmark = {
  name: 'shuffle',
  description: 'word count in 2 slots with a shuffle over ports or TCP, against 2 independent jobs of 1 slot',
  async run({ rounds }, say) {
    const copies = await Promise.all(
      [0, 1].map(() => JobSlots.start({ slots: 1, place: 'threads', codec: 'columnar' })),
    );
    const columnar = await JobSlots.start({ slots: 2, place: 'threads', codec: 'columnar' });
    const tcp = await JobSlots.start({ slots: 2, place: 'threads', codec: 'columnar', network: 'tcp' });
    try {
      const contenders = [
        {
          name: '2 copies',
          run: () => Promise.all(copies.map((copy) => copy.run(job(LINES / 2, 1)))).then(() => WORDS),
        },
        { name: 'shuffle', run: () => columnar.run(job(LINES, 2)).then(() => WORDS) },
        { name: 'shuffle over TCP', run: () => tcp.run(job(LINES, 2)).then(() => WORDS) },
        { name: '1 slot', run: () => copies[0]?.run(job(LINES, 1)).then(() => WORDS) ?? 0 },
      ];
      const measured = await measureRounds(contenders, {
        rounds: Math.ceil(rounds / 5),
        warmupRounds: 2,
        clock: 'wall',
      });
      const [ceiling, own, overTcp, single] = measured as readonly [Measurement, Measurement, Measurement, Measurement];
      say(`CPU: ${measured.map((m) => `${m.name} ${m.cpuNsPerOp?.toFixed(0)} ns a word`).join(', ')}`);
      say(measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M words/s`).join(', '));
      return [
        {
          name: '2-slot shuffle / 2 copies',
          value: speedup(own, ceiling),
          unit: 'x',
          target: { atLeast: 0.85 },
          against: '2 jobs of 1 slot',
        },
        {
          // What a machine that is busy with other things cannot spoil: waiting is not in it.
          name: '2-slot shuffle / 2 copies, by CPU',
          value: (ceiling.cpuNsPerOp ?? Number.NaN) / (own.cpuNsPerOp ?? Number.NaN),
          unit: 'x',
          against: '2 jobs of 1 slot',
        },
        {
          name: 'TCP shuffle / in-process shuffle',
          value: speedup(overTcp, own),
          unit: 'x',
          target: { atLeast: 0.9 },
          against: 'the same job over ports',
        },
        { name: '2-slot shuffle / 1 slot', value: speedup(own, single), unit: 'x', against: 'the same job in 1 slot' },
      ];
    } finally {
      await Promise.all([...copies, columnar, tcp].map((slots) => slots.close()));
    }
  },
};
