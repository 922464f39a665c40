import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import type { KeyedStateHandle, OperatorStateHandle } from '../contracts/state-handles.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { removeLocalCopies } from './local-copies.ts';
import type { KeyedStateBackend } from './ports.ts';
import { createStateBackends, type StateBackendsOptions } from './state-backends.ts';
import { testScope } from './testing/scope.ts';

const never = new AbortController().signal;
const KEYS = [...Array(300).keys()];
const { jobId } = testScope(0);

let localDirectory: string;
let objects: MemoryObjectStore;
beforeEach(() => {
  localDirectory = mkdtempSync(join(tmpdir(), 'millrace-local-'));
  objects = new MemoryObjectStore(new ManualClock());
});
afterEach(() => rmSync(localDirectory, { recursive: true, force: true }));

function fixture(options: StateBackendsOptions = {}) {
  const backends = createStateBackends(
    { objects },
    { memoryThresholdBytes: 0, localDirectory, localRecovery: true, ...options },
  );
  const open = (restore: readonly KeyedStateHandle[] = [], restoredCheckpointId = 0) =>
    backends.createKeyedStateBackend({
      scope: testScope(0),
      range: { first: 0, last: 15 },
      maxParallelism: 16,
      restore,
      restoredCheckpointId,
      signal: never,
    });
  return { backends, open };
}

function put(backend: KeyedStateBackend, keys: readonly number[], value: string): void {
  for (const key of keys) {
    backend.setCurrentKey(key);
    backend.valueState('v').update(value);
  }
}

function expectAll(backend: KeyedStateBackend, value: string): void {
  for (const key of KEYS) {
    backend.setCurrentKey(key);
    expect(backend.valueState('v').value()).toBe(value);
  }
}

/** The object store answers no reads: what is restored was here. */
async function withoutStore<T>(work: () => Promise<T>): Promise<T> {
  objects.intercept = ({ kind }) => {
    if (kind === 'get' || kind === 'getRange') throw new Error('the store is away');
  };
  try {
    return await work();
  } finally {
    objects.intercept = undefined;
  }
}

const folders = () => (existsSync(join(localDirectory, jobId)) ? readdirSync(join(localDirectory, jobId)).sort() : []);
const filesOf = (folder: string) =>
  readdirSync(join(localDirectory, jobId, folder)).map((name) => join(localDirectory, jobId, folder, name));

test('a task that comes back to its worker restores from the disk, without the object store', async () => {
  const { backends, open } = fixture();
  const backend = await open();
  put(backend, KEYS, 'a');
  const { handles } = await backend.snapshot(1).write(never);
  backend.checkpointCompleted(1);
  const operator = await backends.createOperatorStateBackend({ scope: testScope(0), restore: [], signal: never });
  operator.update('list', 'SPLIT', ['x', 'y']);
  const lists = await operator.snapshot(1).write(never);
  await withoutStore(async () => {
    expectAll(await open(handles, 1), 'a');
    const restored = await backends.createOperatorStateBackend({
      scope: testScope(0),
      restore: lists.handles as readonly OperatorStateHandle[],
      restoredCheckpointId: 1,
      signal: never,
    });
    expect(restored.restored('list')).toEqual(['x', 'y']);
  });
});

test('a copy that is missing, cut short or changed is not used: the store has the same', async () => {
  const damages: readonly ((file: string) => void)[] = [
    (file) => rmSync(file),
    (file) => truncateSync(file, 100),
    (file) =>
      writeFileSync(
        file,
        readFileSync(file).map((byte, i) => (i === 50 ? byte ^ 1 : byte)),
      ),
  ];
  for (const [i, damage] of damages.entries()) {
    const { open } = fixture();
    const backend = await open();
    put(backend, KEYS, `a${i}`);
    const { handles } = await backend.snapshot(i + 1).write(never);
    backend.checkpointCompleted(i + 1);
    for (const file of filesOf(`chk-${i + 1}`)) damage(file);
    expectAll(await open(handles, i + 1), `a${i}`);
    await withoutStore(() => expect(open(handles, i + 1)).rejects.toThrow('the store is away'));
  }
});

test('only the newest checkpoint has copies: older and aborted ones go, and all with the job', async () => {
  const { backends, open } = fixture();
  const backend = await open();
  for (const id of [1, 2, 3, 4]) {
    put(backend, KEYS, `${id}`);
    await backend.snapshot(id).write(never);
    if (id === 3) backend.checkpointAborted(id);
    else if (id !== 4) backend.checkpointCompleted(id);
    await backends.close();
    expect(folders()).toEqual([['chk-1'], ['chk-2'], ['chk-2'], ['chk-2', 'chk-4']][id - 1]);
  }
  // A savepoint is not copied, and takes nothing away.
  const savepoint = await backend.snapshot(5, { kind: 'SAVEPOINT' }).write(never);
  backend.checkpointCompleted(5);
  await backends.close();
  expect(savepoint.handles).toHaveLength(1);
  expect(folders()).toEqual(['chk-2', 'chk-4']);
  const other = await open();
  other.checkpointCompleted(4);
  await backends.close();
  expect(folders()).toEqual(['chk-4']);
  await removeLocalCopies(localDirectory, jobId);
  expect(folders()).toEqual([]);
});

test('an incremental checkpoint has copies of all that it refers to, whatever becomes of the older folders', async () => {
  const { backends, open } = fixture({ incremental: true });
  const backend = await open();
  put(backend, KEYS, 'a');
  await backend.snapshot(1).write(never);
  backend.checkpointCompleted(1);
  let last: readonly KeyedStateHandle[] = [];
  for (const id of [2, 3, 4]) {
    put(backend, [id], 'b');
    put(backend, [id], 'a');
    last = (await backend.snapshot(id).write(never)).handles;
    backend.checkpointCompleted(id);
  }
  await backends.close();
  expect(folders()).toEqual(['chk-4']);
  expect(filesOf('chk-4').length).toBeGreaterThan(1);
  const restored = await withoutStore(() => open(last, 4));
  expectAll(restored, 'a');
  // And the restored one goes on from there.
  put(restored, [7], 'c');
  const { handles } = await restored.snapshot(5).write(never);
  restored.checkpointCompleted(5);
  await backends.close();
  put(restored, [7], 'a');
  expect(folders()).toEqual(['chk-5']);
  await withoutStore(() => open(handles, 5));
});

test('a disk that cannot be written to costs the copy, not the checkpoint', async () => {
  writeFileSync(join(localDirectory, 'file'), '');
  const { open } = fixture({ localDirectory: join(localDirectory, 'file') });
  const backend = await open();
  put(backend, KEYS, 'a');
  const { handles } = await backend.snapshot(1).write(never);
  backend.checkpointCompleted(1);
  expectAll(await open(handles, 1), 'a');
});

test('a snapshot that fails or stays inline leaves no copy, and without local recovery there is none', async () => {
  const { open } = fixture();
  const backend = await open();
  put(backend, KEYS, 'a');
  objects.intercept = ({ kind }) => {
    if (kind === 'put') throw new Error('store away');
  };
  await expect(backend.snapshot(1).write(never)).rejects.toThrow('store away');
  objects.intercept = undefined;
  for (const folder of folders()) expect(filesOf(folder)).toEqual([]);
  const inline = fixture({ memoryThresholdBytes: 1_000_000 });
  const small = await inline.open();
  put(small, KEYS, 'a');
  await small.snapshot(2).write(never);
  const off = await fixture({ localRecovery: false }).open();
  put(off, KEYS, 'a');
  await off.snapshot(3).write(never);
  expect(folders().filter((folder) => folder !== 'chk-1')).toEqual([]);
});
