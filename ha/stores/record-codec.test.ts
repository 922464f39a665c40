import { expect, test } from 'vitest';
import type { CheckpointMetadata } from '../../src/contracts/checkpoint.ts';
import { asFencingToken, type JobId } from '../../src/kernel/ids.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { MemoryObjectStore } from '../objects/memory-object-store.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { ClusterKeys } from './cluster-keys.ts';
import { newJarId } from './jar-store.ts';
import { decodeObject, digestOfBytes, encodeObject, readVerified } from './object-codec.ts';
import { decodeRecord, encodeRecord, MAX_RECORD_BYTES } from './record-codec.ts';
import { COUNTER_RECORD, GRAPH_OBJECT, METADATA_OBJECT } from './records.ts';
import { endOf, graphOf, World } from './store-world.fixture.ts';
import { truncateText } from './truncate-text.ts';

const entry = (value: string) => ({ key: 'k', value, modRevision: 1n, createRevision: 1n, lease: undefined });
const JOB = graphOf(1);

async function setUp() {
  const clock = new SystemClock();
  const model = new EtcdModel({ clock });
  const objects = new MemoryObjectStore(clock);
  const world = new World({ coordination: model.client(), objects });
  return { model, objects, world, leader: await world.leader() };
}

test('a record of a newer version asks for an upgrade, a damaged one is damage', () => {
  const good = encodeRecord(COUNTER_RECORD, { writeId: 'w', last: 7 });
  expect(decodeRecord(COUNTER_RECORD, entry(good))).toEqual({ writeId: 'w', last: 7 });
  // Fields that a later minor change adds are borne.
  expect(decodeRecord(COUNTER_RECORD, entry(good.replace('{', '{"more":1,')))).toEqual({ writeId: 'w', last: 7 });
  const refused = (value: string, code: string) =>
    expect(() => decodeRecord(COUNTER_RECORD, entry(value))).toThrow(expect.objectContaining({ code }));
  refused(good.replace('"v":1', '"v":2'), 'UNSUPPORTED_VERSION');
  refused(good.replace('"v":1,', ''), 'CORRUPT');
  refused(good.replace('7', '"seven"'), 'CORRUPT');
  refused(good.slice(1), 'CORRUPT');
  refused('null', 'CORRUPT');
});

test('an object is refused when any bit of it has changed, or it is newer, or something else', () => {
  const bytes = encodeObject(GRAPH_OBJECT, JOB);
  expect(decodeObject(GRAPH_OBJECT, 'k', bytes)).toEqual(JOB);
  for (const at of [0, 5, 36, 40, bytes.length - 1]) {
    const damaged = bytes.slice();
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    expect(() => decodeObject(GRAPH_OBJECT, 'k', damaged), `byte ${at}`).toThrow(
      expect.objectContaining({ code: 'CORRUPT' }),
    );
  }
  expect(() => decodeObject(GRAPH_OBJECT, 'k', bytes.subarray(0, 20))).toThrow('not an object of millrace');
  expect(() => decodeObject(GRAPH_OBJECT, 'k', encodeObject({ ...GRAPH_OBJECT, version: 2 }, JOB))).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED_VERSION' }),
  );
  expect(() => decodeObject(METADATA_OBJECT, 'k', bytes)).toThrow(expect.objectContaining({ code: 'CORRUPT' }));
});

test('splits and inline state come back as they were', async () => {
  const { world } = await setUp();
  const splits = [{ a: 1, b: [null, true, 'ü', -1.5, 1e300, 2 ** 40] }, 'x', 3];
  const [vertex] = JOB.vertices;
  const graph = { ...JOB, vertices: [{ ...vertex, operators: [{ ...vertex?.operators[0], splits }] }] } as typeof JOB;
  expect(decodeObject(GRAPH_OBJECT, 'k', encodeObject(GRAPH_OBJECT, graph))).toEqual(graph);
  const metadata: CheckpointMetadata = await world.snapshot(JOB, 1);
  const back = decodeObject(METADATA_OBJECT, 'k', encodeObject(METADATA_OBJECT, metadata));
  expect(back).toEqual(metadata);
  const handle = back.operators[0]?.subtasks[0]?.operator[0]?.handle;
  expect(handle?.kind === 'inline' && handle.bytes.constructor).toBe(Uint8Array);
});

test('a pointer refuses an object that is missing, shorter, or another', async () => {
  const { objects } = await setUp();
  await objects.put('a', new Uint8Array([1, 2, 3]));
  const pointer = { objectKey: 'a', digest: digestOfBytes(new Uint8Array([1, 2, 3])), bytes: 3 };
  expect(await readVerified(objects, pointer)).toEqual(new Uint8Array([1, 2, 3]));
  const corrupt = { code: 'CORRUPT' };
  await expect(readVerified(objects, { ...pointer, objectKey: 'b' })).rejects.toMatchObject(corrupt);
  await objects.put('a', new Uint8Array([1, 2]));
  await expect(readVerified(objects, pointer)).rejects.toMatchObject(corrupt);
  await objects.put('a', new Uint8Array([1, 2, 4]));
  await expect(readVerified(objects, pointer)).rejects.toMatchObject(corrupt);
});

test('an unreadable job is listed, says why when loaded, can be ended, and hides no other', async () => {
  const { model, leader, world } = await setUp();
  for (const n of [1, 2]) await leader.jobGraphs.submit(graphOf(n), leader.token, {});
  const spoil = (value: string) =>
    model.txn({ guards: [], then: [{ kind: 'put', key: world.keys.job(JOB.jobId), value }] });
  spoil('not JSON');
  expect((await leader.jobGraphs.list()).map((one) => one.jobId)).toEqual([JOB.jobId, graphOf(2).jobId]);
  await expect(leader.jobGraphs.load(JOB.jobId)).rejects.toMatchObject({ code: 'CORRUPT' });
  spoil('{"v":2}');
  await expect(leader.jobGraphs.load(JOB.jobId)).rejects.toMatchObject({ code: 'UNSUPPORTED_VERSION' });
  await expect(leader.jobGraphs.load(graphOf(3).jobId)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  const { result, details } = endOf(JOB, 'CANCELED');
  await leader.jobResults.complete(result, details, leader.token);
  await leader.jobResults.cleanUp(JOB.jobId, leader.token);
  expect(await leader.jobResults.get(JOB.jobId)).toMatchObject({ status: 'CANCELED' });
});

test('a graph whose object is lost or of a newer format says which, and is not taken for unknown', async () => {
  const { leader, objects, world } = await setUp();
  await leader.jobGraphs.submit({ ...JOB, formatVersion: 2 }, leader.token, {});
  await expect(leader.jobGraphs.load(JOB.jobId)).rejects.toMatchObject({ code: 'UNSUPPORTED_VERSION' });
  await objects.delete(await world.objectKeys());
  await expect(leader.jobGraphs.load(JOB.jobId)).rejects.toMatchObject({ code: 'CORRUPT' });
});

test('long names and errors are cut to what a record holds; the details keep them whole', async () => {
  const { leader, model, world } = await setUp();
  const name = '\u{1F600}"\u0001'.repeat(166);
  const graph = { ...JOB, name, bundle: { kind: 'inline', programId: 'x' } } as typeof JOB;
  await leader.jobGraphs.submit(graph, leader.token, { idempotencyKey: 'x'.repeat(5_000) });
  const [listed] = await leader.jobGraphs.list();
  expect(name.startsWith(listed?.name.slice(0, -1) ?? 'none')).toBe(true);
  const { result, details } = endOf(graph, 'FAILED');
  const error = {
    code: 'USER_CODE',
    message: 'm\n'.repeat(5_000),
    hint: 'h'.repeat(5_000),
    stack: 's'.repeat(50_000),
  } as const;
  await leader.jobResults.complete({ ...result, error }, details, leader.token);
  const value = model.get(world.keys.result(JOB.jobId))?.value ?? '';
  expect(Buffer.byteLength(value)).toBeLessThan(MAX_RECORD_BYTES);
  expect((await leader.jobResults.details(JOB.jobId))?.name).toBe(name);
});

test('text is cut between characters, to the bytes that it takes as JSON', () => {
  expect(truncateText('short', 100)).toBe('short');
  for (const bytes of [8, 9, 10, 11, 12, 13, 40]) {
    const cut = truncateText('\u{1F600}\u{1F600}\u{1F600}\u0001\u0001ä"ä"'.repeat(4), bytes);
    expect(Buffer.byteLength(JSON.stringify(cut))).toBeLessThanOrEqual(bytes);
    expect(Buffer.from(cut).toString()).toBe(cut); // No half of a surrogate pair.
    expect(cut.endsWith('…')).toBe(true);
  }
});

test('jar ids are a uuid and a safe name; the ending survives', () => {
  const random = new SeededRandom(1);
  expect(newJarId('word-count-1.0.mjs', random)).toMatch(
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}_word-count-1\.0\.mjs$/,
  );
  expect(newJarId('mein Zähler (2).mjs', random)).toMatch(/_mein_Z_hler__2_\.mjs$/);
  expect(newJarId(`${'x'.repeat(200)}.mjs`, random)).toMatch(/_x{96}\.mjs$/);
  expect(newJarId('日本語', random)).toMatch(/____$/);
});

test('a jar id that is none is not found, whatever it holds', async () => {
  const { leader } = await setUp();
  for (const id of ['', '../leader', 'x/y', 'leader', '\u0000', 'a'.repeat(9_999)])
    await expect(leader.jars.get(id as never)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('names of clusters are checked; two clusters share stores without meeting', () => {
  expect(() => new ClusterKeys('a/b')).toThrow('cluster-id');
  expect(() => new ClusterKeys('')).toThrow('cluster-id');
  expect(() => new ClusterKeys('x').replica('a b', 'i')).toThrow('jobmanager.id');
  const keys = new ClusterKeys('x');
  const jobId = JOB.jobId as JobId;
  const all = [
    keys.job(jobId),
    keys.result(jobId),
    keys.counter(jobId),
    keys.checkpoint(jobId, 1),
    keys.jars,
    keys.replicas,
  ];
  expect(all.filter((key) => key.startsWith(keys.leader))).toEqual([]);
  expect(keys.jobPrefixOfObject(keys.graphObject(jobId, asFencingToken(1n), 'w'))).toBe(keys.jobObjects(jobId));
});
