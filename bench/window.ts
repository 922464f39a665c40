import type { Benchmark } from './lib/benchmark.ts';
import { JobSlots } from './lib/job-slots.ts';
import { type ReadingsShape, readingMaker } from './lib/readings-source.ts';
import { type Measurement, measureRounds, speedup } from './lib/rounds.ts';

const READINGS: ReadingsShape = { readings: 4_000_000, sensors: 1_000, perSecond: 10_000 };
/** Forty windows, each of a hundred readings of every sensor. */
const WINDOW_MS = 10_000;

/** A sum by key and tumbling window in one slot, against the running sum by key in the same engine. */
export const windowBench: Benchmark = {
  name: 'window',
  description: 'sum readings by sensor and tumbling window in one slot, against the sum by sensor alone',
  async run({ rounds }, say) {
    const slots = await JobSlots.start({ slots: 1, place: 'inline', codec: 'columnar' });
    try {
      const job = (name: 'sum of readings' | 'windowed sum of readings') => () =>
        slots.run({ job: name, readings: READINGS, windowMs: WINDOW_MS }).then(() => READINGS.readings);
      const contenders = [
        { name: 'keyed sum', run: job('sum of readings') },
        { name: 'windowed sum', run: job('windowed sum of readings') },
        { name: 'keyed loop', run: keyedByHand },
        { name: 'pane loop', run: panesByHand },
      ];
      const measured = await measureRounds(contenders, {
        rounds: Math.ceil(rounds / 4),
        warmupRounds: 2,
        clock: 'cpu',
      });
      const [keyed, windowed, keyedLoop, paneLoop] = measured as [Measurement, Measurement, Measurement, Measurement];
      say(measured.map((m) => `${m.name} ${(1e3 / m.nsPerOp).toFixed(2)} M readings/s`).join(', '));
      return [
        {
          name: 'windowed sum / keyed sum',
          value: speedup(windowed, keyed),
          unit: 'x',
          target: { atLeast: 0.85 },
          against: 'running sum by key, same engine and source',
        },
        {
          name: 'windowed sum / loop',
          value: speedup(windowed, paneLoop),
          unit: 'x',
          against: 'hand-written loop with a Map for each window',
        },
        {
          name: 'keyed sum / loop',
          value: speedup(keyed, keyedLoop),
          unit: 'x',
          against: 'hand-written loop with a Map',
        },
      ];
    } finally {
      await slots.close();
    }
  },
};

function keyedByHand(): number {
  const make = readingMaker(READINGS);
  const sums = new Map<string, number>();
  for (let n = 0; n < READINGS.readings; n++) {
    const { sensor, value } = make(n, READINGS.perSecond);
    sums.set(sensor, (sums.get(sensor) ?? 0) + value);
  }
  if (sums.size !== READINGS.sensors) throw new Error(`${sums.size} sensors`);
  return READINGS.readings;
}

function panesByHand(): number {
  const make = readingMaker(READINGS);
  const panes = new Map<number, Map<string, number>>();
  let results = 0;
  for (let n = 0; n < READINGS.readings; n++) {
    const { sensor, value, atMs } = make(n, READINGS.perSecond);
    const start = Math.floor(atMs / WINDOW_MS) * WINDOW_MS;
    let pane = panes.get(start);
    if (pane === undefined) {
      pane = new Map();
      panes.set(start, pane);
      const ended = panes.get(start - 2 * WINDOW_MS);
      if (ended !== undefined) results += ended.size;
      panes.delete(start - 2 * WINDOW_MS);
    }
    pane.set(sensor, (pane.get(sensor) ?? 0) + value);
  }
  for (const pane of panes.values()) results += pane.size;
  if (results !== (READINGS.sensors * READINGS.readings) / (READINGS.perSecond * (WINDOW_MS / 1_000))) {
    throw new Error(`${results} results`);
  }
  return READINGS.readings;
}
