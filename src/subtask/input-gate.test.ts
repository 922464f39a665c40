import { expect, test } from 'vitest';
import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import { LocalInputChannel } from '../exchange/local-channel.ts';
import { rowCodec } from '../exchange/row-codec.ts';
import { Subpartition } from '../exchange/subpartition.ts';
import { SeededRandom } from '../kernel/random.ts';
import { AtLeastOnceTracker, ExactlyOnceAligner } from './barrier-aligner.ts';
import { InputGate } from './input-gate.ts';

const barrier = (checkpointId: number): CheckpointBarrier => ({
  checkpointId,
  timestampMs: 0,
  options: { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 },
});

/** Producers that write numbered batches and barriers, each at its own pace, into bounded queues. */
class Producer {
  readonly subpartition = new Subpartition('test', 3, { onFull: () => undefined, onAvailable: () => undefined });
  written = 0;
  /** How many batches came before each barrier. */
  readonly beforeBarrier = new Map<number, number>();
  nextCheckpoint = 1;
  state: 'open' | 'end-of-data' | 'end-of-stream' = 'open';

  batch(): void {
    const encoder = rowCodec.createEncoder();
    encoder.append(++this.written);
    this.subpartition.push({ kind: 'records', codec: rowCodec.id, payload: encoder.finish(), records: 1 });
  }

  barrier(): void {
    const id = this.nextCheckpoint++;
    this.beforeBarrier.set(id, this.written);
    this.subpartition.push({ kind: 'barrier', barrier: barrier(id) });
  }

  end(): void {
    this.state = this.state === 'open' ? 'end-of-data' : 'end-of-stream';
    this.subpartition.push({ kind: this.state === 'end-of-data' ? 'end-of-data' : 'end-of-stream' });
  }
}

function connect(producers: readonly Producer[], aligner: ExactlyOnceAligner | AtLeastOnceTracker): InputGate {
  const gate = new InputGate(producers.length, aligner, () => undefined);
  producers.forEach((producer, i) => {
    const listener = { onData: () => gate.onData(i), onFailed: () => undefined };
    gate.connect(i, new LocalInputChannel(`producer ${i}`, producer.subpartition, listener));
  });
  return gate;
}

/** A random interleaving of two producers and the consumer; `onCheckpoint` sees what was read by then. */
function run(
  seed: number,
  gate: InputGate,
  producers: readonly Producer[],
  onCheckpoint: (checkpointId: number, read: readonly number[]) => void,
): readonly number[] {
  const random = new SeededRandom(seed);
  const decoder = rowCodec.createDecoder();
  const read = producers.map(() => 0);
  let dry = 0;
  while (dry < 50) {
    for (const producer of producers) {
      if (producer.state === 'end-of-stream' || !producer.subpartition.available || random.next() < 0.4) continue;
      const dice = random.next();
      if (producer.state === 'open' && dice < 0.75) producer.batch();
      else if (dice < 0.95 && producer.nextCheckpoint <= 30) producer.barrier();
      else if (producer.written > 60 || producer.nextCheckpoint > 30) producer.end();
    }
    for (let polls = random.int(4); polls > 0; polls--) {
      const event = gate.next(0);
      if (event === undefined) continue;
      dry = 0;
      if (event.kind === 'records') {
        const [n] = decoder.decode(event.message.payload);
        const before = read[event.channel] ?? 0;
        expect(n).toBe(before + 1);
        read[event.channel] = before + 1;
        gate.processed(event.channel);
      }
      if (event.kind === 'checkpoint') onCheckpoint(event.barrier.checkpointId, read);
    }
    dry++;
  }
  return read;
}

test('whatever the interleaving, an exactly-once snapshot holds exactly what came before the barriers', () => {
  let checkpoints = 0;
  for (let seed = 1; seed <= 120; seed++) {
    const producers = [new Producer(), new Producer()];
    const gate = connect(producers, new ExactlyOnceAligner(2));
    let last = 0;
    const read = run(seed, gate, producers, (id, seen) => {
      expect(id, `seed ${seed}`).toBeGreaterThan(last);
      last = id;
      checkpoints++;
      producers.forEach((producer, i) => {
        // A producer that finished without this barrier had been read to its end.
        expect(seen[i], `seed ${seed}, checkpoint ${id}`).toBe(producer.beforeBarrier.get(id) ?? producer.written);
      });
    });
    expect(read, `seed ${seed}`).toEqual(producers.map(({ written }) => written));
    expect(gate.finished).toBe(true);
  }
  expect(checkpoints).toBeGreaterThan(400);
});

test('an at-least-once snapshot holds at least what came before the barriers, and nothing is ever blocked', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const producers = [new Producer(), new Producer()];
    const gate = connect(producers, new AtLeastOnceTracker(2));
    const read = run(seed, gate, producers, (id, seen) => {
      producers.forEach((producer, i) => {
        expect(seen[i], `seed ${seed}`).toBeGreaterThanOrEqual(producer.beforeBarrier.get(id) ?? producer.written);
      });
    });
    expect(read).toEqual(producers.map(({ written }) => written));
  }
});

test('an aborted alignment lets blocked channels flow again', () => {
  const [fast, slow] = [new Producer(), new Producer()];
  const gate = connect([fast, slow], new ExactlyOnceAligner(2));
  fast.barrier();
  fast.batch();
  expect(gate.next(0)).toBeUndefined();
  gate.abortCheckpoint(1);
  expect(gate.next(0)).toMatchObject({ kind: 'records', channel: 0 });
});

test('the end of all data is told once, after the last record', () => {
  const producers = [new Producer(), new Producer()];
  const gate = connect(producers, new ExactlyOnceAligner(2));
  producers[0]?.end();
  producers[1]?.batch();
  producers[1]?.end();
  expect(gate.next(0)).toMatchObject({ kind: 'records', channel: 1 });
  expect(gate.next(0)).toEqual({ kind: 'end-of-data', drained: false });
  producers[0]?.end();
  producers[1]?.end();
  expect(gate.next(0)).toBeUndefined();
  expect(gate.finished).toBe(true);
});
