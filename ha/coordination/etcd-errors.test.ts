import { expect, test } from 'vitest';
import { verdictOn } from './etcd-errors.ts';

test.each([
  // Said before anything is proposed: surely no effect, ask another member.
  [14, 'etcdserver: no leader', 'unsent'],
  [14, 'etcdserver: rpc not supported for learner', 'unsent'],
  [8, 'etcdserver: too many requests', 'unsent'],
  [14, 'No connection established. Last error: connect ECONNREFUSED 127.0.0.1:2379', 'unsent'],
  [14, 'Name resolution failed for target dns:nowhere:2379', 'unsent'],
  [16, 'etcdserver: invalid auth token', 'expired-token'],
  [3, 'etcdserver: revision of auth store is old', 'expired-token'],
  [11, 'etcdserver: mvcc: required revision has been compacted', 'compacted'],
  // Said by etcd as its decision.
  [5, 'etcdserver: requested lease not found', 'refused NOT_FOUND'],
  [3, 'etcdserver: duplicate key given in txn request', 'refused INVALID_ARGUMENT'],
  [3, 'etcdserver: request is too large', 'refused INVALID_ARGUMENT'],
  [7, 'etcdserver: permission denied', 'refused UNAVAILABLE'],
  [3, 'etcdserver: authentication failed, invalid user ID or password', 'refused UNAVAILABLE'],
  [3, 'etcdserver: user name is empty', 'refused UNAVAILABLE'],
  [8, 'etcdserver: mvcc: database space exceeded', 'refused UNAVAILABLE'],
  // All else may have happened.
  [14, 'etcdserver: request timed out', 'lost'],
  [14, 'etcdserver: request timed out, possibly due to previous leader failure', 'lost'],
  [14, 'etcdserver: leader changed', 'lost'],
  [14, 'etcdserver: server stopped', 'lost'],
  [14, 'Connection dropped', 'lost'],
  [14, 'read ECONNRESET', 'lost'],
  [4, 'Deadline exceeded after 1.000s', 'lost'],
  [1, 'Cancelled on client', 'lost'],
  [2, 'etcdserver: something new', 'lost'],
  [8, 'Received message larger than max (5000000 vs. 4194304)', 'lost'],
  [13, 'Received RST_STREAM with code 2', 'lost'],
])('gRPC code %i, "%s" means %s', (code, details, meaning) => {
  const verdict = verdictOn({ code, details });
  expect(verdict.kind === 'refused' ? `refused ${verdict.error.code}` : verdict.kind).toBe(meaning);
});
