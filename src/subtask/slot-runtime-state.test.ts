import { afterEach, expect, test } from 'vitest';
import type { CheckpointMetadata } from '../contracts/checkpoint.ts';
import { stateKeysOf } from '../../ha/stores/checkpoint-pointers.ts';
import { rangeSource, type RangeRecord, Valve } from './testing/range-source.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

const clusters: SlotCluster[] = [];

afterEach(async () => {
  await Promise.all(clusters.splice(0).map((made) => made.close()));
});

async function cluster(slots: number): Promise<SlotCluster> {
  const made = new SlotCluster(undefined, { memoryThresholdBytes: 0, incremental: true });
  clusters.push(made);
  await made.addSlots(slots, { subtask: { closeTimeoutMs: 500 } });
  return made;
}

const shared = (metadata: CheckpointMetadata) => [...stateKeysOf(metadata)].filter((key) => key.includes('/shared/'));

test('checkpoints share what has not changed; a savepoint is whole, and no checkpoint refers to it', async () => {
  const slots = await cluster(1);
  const program = await slots.program((env) => {
    env.enableCheckpointing(60_000);
    env
      .fromSource(rangeSource([500], new Valve(), { endless: true }))
      .keyBy(({ n }: RangeRecord) => n)
      .reduce((_, b) => b)
      .sinkTo(new GatedSink().sink());
  });
  await slots.deploy(program);
  await slots.running();
  const first = await slots.checkpoint(program, 1);
  slots.complete(1);
  const second = await slots.checkpoint(program, 2, 'SAVEPOINT');
  slots.complete(2);
  const third = await slots.checkpoint(program, 3);
  expect(shared(first)).toHaveLength(1);
  expect(shared(second)).toEqual([]);
  expect(stateKeysOf(second).size).toBeGreaterThan(0);
  expect(shared(third)).toEqual(shared(first));
});
