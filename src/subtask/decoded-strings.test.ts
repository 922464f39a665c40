import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { recordCodec } from '../exchange/record-codecs.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asAttemptId, asJobId, asOperatorId, type DeploymentId } from '../kernel/ids.ts';
import { createStateBackends } from '../state/state-backends.ts';

const KEYS = 2_000;
/** What a batch's column of strings takes; a key that keeps it alive costs as much. */
const COLUMN_BYTES = 32 * 1024;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function heapBytes(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

test('a key cut from a decoded column does not keep the column alive in keyed state', async () => {
  const codec = recordCodec('columnar');
  const encoder = codec.createEncoder();
  const decoder = codec.createDecoder();
  const backend = await createStateBackends({
    objects: new MemoryObjectStore(new SystemClock()),
  }).createKeyedStateBackend({
    scope: {
      jobId: asJobId('1'.repeat(32)),
      deployment: '1-1' as DeploymentId,
      operatorId: asOperatorId('2'.repeat(32)),
      attemptId: asAttemptId('3'.repeat(32)),
      subtaskIndex: 0,
    },
    range: { first: 0, last: 127 },
    maxParallelism: 128,
    restore: [],
    signal: new AbortController().signal,
  });
  const state = backend.valueState('sum');
  const filler = 'x'.repeat(COLUMN_BYTES / 32);
  const before = heapBytes();
  for (let key = 0; key < KEYS; key++) {
    encoder.append({ word: `a key of more than thirteen characters, ${key}` });
    for (let i = 0; i < 32; i++) encoder.append({ word: filler });
    const [record] = decoder.decode(encoder.finish()) as readonly { readonly word: string }[];
    if (record === undefined) throw new Error('the batch is empty');
    backend.setCurrentKey(record.word);
    state.update(record);
  }
  // All columns together are 64 MB; the keys are some hundred bytes each.
  expect(heapBytes() - before).toBeLessThan((KEYS * COLUMN_BYTES) / 8);
  backend.dispose();
});
