import { expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { until } from '../../test-support/until.ts';
import { EtcdModel } from '../coordination/etcd-model.ts';
import { addressOf, testKeys } from '../election/election.fixture.ts';
import { NEXT_LEADER_RECORD } from '../election/hand-over.ts';
import { encodeLeader, LEADER_RECORD } from '../election/leader-record.ts';
import { WatchedLeaderRetrieval } from '../election/leader-retrieval.ts';
import { encodeReplica, REPLICA_RECORD, ReplicaDirectory } from '../election/replica-directory.ts';
import { decodeObject, encodeObject, type ObjectType } from './object-codec.ts';
import { OPERATION_RECORD } from './operation-store.ts';
import { decodeRecord, type RecordType } from './record-codec.ts';
import * as records from './records.ts';

/** Two masters of adjacent versions share the stores: neither may misread what the other wrote. */

const isRecord = (one: unknown): one is RecordType<unknown> | ObjectType<unknown> =>
  typeof one === 'object' && one !== null && 'schema' in one && 'version' in one;
const kinds = Object.entries(records).filter(([, one]) => isRecord(one)) as [string, RecordType<unknown>][];
const inCoordination: [string, RecordType<never>][] = [
  ...(kinds.filter(([name]) => name.endsWith('_RECORD')) as [string, RecordType<never>][]),
  ['LEADER_RECORD', LEADER_RECORD as RecordType<never>],
  ['NEXT_LEADER_RECORD', NEXT_LEADER_RECORD as RecordType<never>],
  ['REPLICA_RECORD', REPLICA_RECORD as RecordType<never>],
  ['OPERATION_RECORD', OPERATION_RECORD as RecordType<never>],
];
const objects = kinds.filter(([name]) => name.endsWith('_OBJECT')) as [string, ObjectType<unknown>][];

const entryOf = (value: string) => ({ key: 'k', value, modRevision: 1n, createRevision: 1n, lease: undefined });

test('there are as many kinds of records as this test believes', () => {
  expect(inCoordination.length).toBeGreaterThanOrEqual(11);
  expect(objects.length).toBeGreaterThanOrEqual(3);
});

test.each(inCoordination)('a newer %s asks for an upgrade instead of being misread', (_name, kind) => {
  const newer = JSON.stringify({ v: kind.version + 1, whatever: 'a later version means by it' });
  expect(() => decodeRecord(kind, entryOf(newer))).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED_VERSION', hint: expect.stringContaining('upgrade') }),
  );
});

test.each(objects)('a newer %s asks for an upgrade instead of being misread', (_name, kind) => {
  const newer = encodeObject({ ...kind, version: kind.version + 1 }, { later: true });
  expect(() => decodeObject(kind, 'k', newer)).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED_VERSION', hint: expect.stringContaining('upgrade') }),
  );
});

test('a leader and a replica of the next version that only add fields are understood, newer forms are left alone', async () => {
  const clock = new SystemClock();
  const model = new EtcdModel({ clock });
  const deps = { coordination: model.client(), keys: testKeys, clock, log: silentLogger };
  const put = (key: string, value: string) => model.txn({ guards: [], then: [{ kind: 'put', key, value }] });
  const leader = encodeLeader({ ...addressOf('a'), electedWallMs: 1, campaign: 'c' });
  put(testKeys.leader, leader.replace('{', '{"addedLater":true,'));
  put(testKeys.replica('a', 'one'), encodeReplica({ ...addressOf('a'), startedWallMs: 1 }).replace('{', '{"more":1,'));
  await using retrieval = WatchedLeaderRetrieval.start(deps);
  await using directory = ReplicaDirectory.start(deps);
  await until('the leader', () => retrieval.current()?.replicaId === 'a');
  await until('the replica', () => directory.list().length === 1);
  put(testKeys.replica('b', 'two'), JSON.stringify({ v: 2, form: 'new' }));
  put(testKeys.leader, JSON.stringify({ v: 2, form: 'new' }));
  await until('nobody to be followed', () => retrieval.current() === undefined);
  expect(directory.list().map(({ replicaId }) => replicaId)).toEqual(['a']);
});
