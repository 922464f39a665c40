import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { LeaderInfo } from '../contracts/leadership.ts';
import { MillraceError } from '../kernel/errors.ts';
import { asFencingToken } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import type { HandOverRequest, HaView, RestDeps } from './ports.ts';
import { RestServer } from './rest-server.ts';
import { JOB_ID, ModelDispatcher } from './testing/model-dispatcher.ts';

/** Two masters: `leader` leads, `standby` knows it. */
class ModelElection {
  leader: string | undefined = 'leader';
  readonly handOvers: (HandOverRequest & { readonly by: string })[] = [];
  readonly ports = new Map<string, number>();

  view(replicaId: string): HaView {
    const urlOf = (id: string) => `http://127.0.0.1:${this.ports.get(id) ?? 0}`;
    return {
      replicaId,
      restUrl: () => urlOf(replicaId),
      isLeading: () => this.leader === replicaId,
      leader: () => (this.leader === undefined ? undefined : this.info(this.leader, urlOf(this.leader))),
      replicas: async () =>
        [...this.ports.keys()].map((id) => ({ id, restUrl: urlOf(id), rpcAddress: '127.0.0.1:1', startedMs: 1 })),
      events: () => [],
      handOver: async (request) => {
        this.handOvers.push({ by: replicaId, ...request });
        if (request.token !== '42') throw new MillraceError('CONFLICT', 'another token leads');
      },
    };
  }

  private info(replicaId: string, restUrl: string): LeaderInfo {
    return {
      replicaId,
      restUrl,
      incarnation: 'aaaaaaaa',
      rpcAddress: '127.0.0.1:1',
      electedWallMs: 9,
      token: asFencingToken(42n),
    };
  }
}

let election: ModelElection;
let dispatcher: ModelDispatcher;
let leader: RestServer;
let standby: RestServer;

beforeEach(async () => {
  election = new ModelElection();
  dispatcher = new ModelDispatcher();
  leader = await start('leader', dispatcher);
  const idle = new ModelDispatcher();
  idle.leading = false;
  standby = await start('standby', idle);
});

afterEach(async () => {
  await leader.close();
  await standby.close();
});

async function start(id: string, behind: ModelDispatcher): Promise<RestServer> {
  const deps: RestDeps = {
    log: silentLogger,
    dispatcher: behind,
    ha: election.view(id),
    configuration: [{ key: 's3.secret-key', value: '******' }],
    version: '0.1.0',
  };
  const server = await RestServer.start(deps, {
    host: '127.0.0.1',
    port: 0,
    maxContentBytes: 1_000,
    webRoot: undefined,
  });
  election.ports.set(id, server.port);
  return server;
}

async function call(server: RestServer, method: string, path: string, init: RequestInit = {}) {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method, ...init });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) };
}

function upload(name: string, content: string): RequestInit {
  const form = new FormData();
  form.append('jarfile', new Blob([content]), name);
  return { body: form };
}

const json = (body: unknown): RequestInit => ({
  body: JSON.stringify(body),
  headers: { 'content-type': 'application/json' },
});

describe.each(['leader', 'standby'] as const)('asked at the %s', (which) => {
  const at = () => (which === 'leader' ? leader : standby);

  test('the conversation of upload, run and status goes through in Flink’s words', async () => {
    const uploaded = await call(
      at(),
      'POST',
      '/jars/upload',
      upload('word-count-1.0.mjs', 'export const WordCount = 1'),
    );
    expect(uploaded).toMatchObject({ status: 200, body: { status: 'success' } });
    expect(uploaded.body.filename).toMatch(/_word-count-1\.0\.mjs$/);

    const run = await call(at(), 'POST', `/jars/${uploaded.body.filename}/run`, json({ entryClass: 'WordCount' }));
    expect(run).toMatchObject({ status: 200, body: { jobid: JOB_ID } });

    const job = await call(at(), 'GET', `/jobs/${JOB_ID}`);
    expect(job.body).toMatchObject({
      jid: JOB_ID,
      name: 'WordCount Example',
      state: 'FINISHED',
      'start-time': 1_000,
      'end-time': 3_000,
      duration: 2_000,
      'last-modification': 3_000,
      tasks: { total: 2, pending: 0, running: 0, finished: 2, canceling: 0, canceled: 0, failed: 0 },
    });
  });

  test('every read answers with and without /v1', async () => {
    const paths = [
      '/jobs',
      '/jobs/overview',
      '/overview',
      '/taskmanagers',
      '/jars',
      `/jobs/${JOB_ID}/exceptions`,
      `/jobs/${JOB_ID}/checkpoints`,
    ];
    for (const path of paths) {
      const plain = await call(at(), 'GET', path);
      expect(plain.status, path).toBe(200);
      expect((await call(at(), 'GET', `/v1${path}`)).body, path).toEqual(plain.body);
    }
  });

  test('an upload over the limit is refused with 413, never cut short, and nothing is kept', async () => {
    // Many sizes and tries: whether the parser itself notices depends on how the bytes arrive.
    for (const size of [1_001, 2_000, 70_000, 1_000_000, 1_000_001, 3_000_000, 3_000_001]) {
      const answer = await call(at(), 'POST', '/jars/upload', upload('big.mjs', 'x'.repeat(size)));
      expect(answer.status, `${size} bytes`).toBe(413);
      expect(answer.body.errors[0]).toMatch(/larger than 1000 bytes.*rest\.server\.max-content-length/);
    }
    expect(dispatcher.jars.size).toBe(0);
    expect((await call(at(), 'POST', '/jars/upload', upload('fits.mjs', 'x'.repeat(1_000)))).status).toBe(200);
  });

  test('a path in the file name is no path', async () => {
    const { body } = await call(at(), 'POST', '/jars/upload', upload('../../etc/passwd', 'x'));
    expect(body.filename).toMatch(/_passwd$/);
  });
});

test.each([
  ['no body', 'POST', '/jars/upload', {}, 400, /multipart/],
  ['an empty file', 'POST', '/jars/upload', upload('a.mjs', ''), 400, /is empty/],
  ['a file without a name', 'POST', '/jars/upload', upload('', 'x'), 400, /has no name/],
  ['an unknown jar', 'POST', '/jars/none/run', json({}), 404, /no jar none/],
  ['an unknown job', 'GET', `/jobs/${'0'.repeat(32)}`, {}, 404, /no job/],
  ['a malformed job id', 'GET', '/jobs/xyz', {}, 400, /32 lower-case hex digits/],
  ['parallelism 0', 'POST', '/jars/none/run', json({ parallelism: 0 }), 400, /parallelism/],
  ['parallelism over the maximum', 'POST', '/jars/none/run', json({ parallelism: 40_000 }), 400, /parallelism/],
  [
    'broken JSON',
    'POST',
    '/jars/none/run',
    { body: '{', headers: { 'content-type': 'application/json' } },
    400,
    /not valid JSON/,
  ],
  ['cancelling an ended job', 'PATCH', `/jobs/${JOB_ID}`, {}, 409, /has ended/],
  ['a program that throws', 'POST', '/jars/none/plan', json({}), 400, /boom/],
  ['an unknown path', 'GET', '/nowhere', {}, 404, /nothing at GET/],
] as const)('%s gets a clear answer', async (_what, method, path, init, status, message) => {
  const answer = await call(leader, method, path, init as RequestInit);
  expect(answer.status).toBe(status);
  expect(answer.body.errors[0]).toMatch(message);
});

test('a cancel is answered 202 once it is accepted', async () => {
  dispatcher.status = 'RUNNING';
  expect((await call(standby, 'PATCH', `/jobs/${JOB_ID}?mode=cancel`)).status).toBe(202);
  expect(dispatcher.cancelled).toEqual([JOB_ID]);
});

test('a hand-over reaches the leader through any master, and needs the leader’s name and token', async () => {
  const asked = await call(standby, 'POST', '/ha/handover', json({ leader: 'leader', token: '42', to: 'standby' }));
  expect(asked).toMatchObject({ status: 200, body: { 'handed-over': { leader: 'leader', to: 'standby' } } });
  expect(election.handOvers).toEqual([{ by: 'leader', leader: 'leader', token: '42', to: 'standby' }]);
  expect((await call(leader, 'POST', '/ha/handover', json({ leader: 'leader', token: '41' }))).status).toBe(409);
  election.handOvers.length = 0;
  for (const body of [undefined, {}, { leader: 'leader' }, { token: '42' }, { leader: 'leader', token: 'x' }]) {
    const refused = await call(leader, 'POST', '/ha/handover', body === undefined ? {} : json(body));
    expect(refused.status).toBe(400);
  }
  expect((await call(leader, 'POST', '/ha/handover', json({ leader: 'leader', token: '42', too: 'x' }))).status).toBe(
    400,
  );
  expect(election.handOvers).toEqual([]);
});

test('during an election every replica answers 503 with a reason and when to come back', async () => {
  election.leader = undefined;
  dispatcher.leading = false;
  for (const server of [leader, standby]) {
    const answer = await call(server, 'GET', '/jobs');
    expect(answer.status).toBe(503);
    expect(answer.headers.get('retry-after')).toBe('1');
    expect(answer.body.errors[0]).toMatch(/election/);
  }
  expect((await call(standby, 'GET', '/ha')).body.leader).toBeNull();
});

test('a standby whose leader has just died says 503, not 500, and never forwards in a circle', async () => {
  await leader.close();
  const dead = await call(standby, 'GET', '/jobs');
  expect(dead.status).toBe(503);
  expect(dead.body.errors[0]).toMatch(/does not answer/);
  const circle = await call(standby, 'GET', '/jobs', { headers: { 'x-millrace-forwarded-by': 'leader' } });
  expect(circle.status).toBe(503);
});

test('arguments come from the body, else from the query', async () => {
  await call(leader, 'POST', '/jars/upload', upload('a.mjs', 'x'));
  const [jarId] = [...dispatcher.jars.keys()];
  await call(
    leader,
    'POST',
    `/jars/${jarId}/run?entry-class=Q&program-args=--a%20%22b%20c%22&parallelism=3`,
    json({ entryClass: 'B' }),
  );
  expect(dispatcher.runs[0]?.request).toMatchObject({ entryClass: 'B', programArgs: ['--a', 'b c'], parallelism: 3 });
});

test('a page of another origin can neither read nor post; the other master’s page may read', async () => {
  const foreign = { origin: 'http://evil.example' };
  const posted = await call(leader, 'POST', '/jars/upload', { ...upload('a.mjs', 'x'), headers: foreign });
  expect(posted.status).toBe(403);
  expect(dispatcher.jars.size).toBe(0);
  expect(
    (await call(leader, 'GET', '/jobs', { headers: foreign })).headers.get('access-control-allow-origin'),
  ).toBeNull();
  const sibling = `http://127.0.0.1:${standby.port}`;
  const read = await call(leader, 'GET', '/jobs', { headers: { origin: sibling } });
  expect(read.headers.get('access-control-allow-origin')).toBe(sibling);
  // It dies, and after a while is no master any more: the page that it served still reads.
  election.ports.delete('standby');
  const later = await call(leader, 'GET', '/jobs', { headers: { origin: sibling } });
  expect(later.headers.get('access-control-allow-origin')).toBe(sibling);
});

test('an unexpected failure shows neither message nor stack', async () => {
  dispatcher.listJobs = async () => {
    throw new Error('secret detail');
  };
  const answer = await call(leader, 'GET', '/jobs');
  expect(answer.status).toBe(500);
  expect(JSON.stringify(answer.body)).not.toContain('secret detail');
});

describe('savepoints, stops and checkpoints on request', () => {
  const id = 'ab'.repeat(16);

  beforeEach(() => {
    dispatcher.status = 'RUNNING';
  });

  const post = (path: string, body?: object) => call(leader, 'POST', path, body === undefined ? {} : json(body));

  test.each([
    [
      'savepoints',
      { 'target-directory': 'weekly', 'cancel-job': true },
      { targetDirectory: 'weekly', cancelJob: true },
    ],
    ['savepoints', { 'target-directory': null, 'cancel-job': false, formatType: 'CANONICAL', triggerId: null }, {}],
    ['savepoints', undefined, {}],
    ['stop', { drain: true, targetDirectory: 'x' }, { stop: 'DRAIN', targetDirectory: 'x' }],
    ['stop', { drain: false }, { stop: 'SUSPEND' }],
    ['stop', undefined, { stop: 'SUSPEND' }],
    ['checkpoints', { checkpointType: 'FULL' }, { full: true }],
    ['checkpoints', { checkpointType: 'CONFIGURED' }, { full: false }],
  ])('POST …/%s with %j is accepted with a request id', async (path, body, request) => {
    for (const prefix of ['', '/v1']) {
      const answer = await post(`${prefix}/jobs/${JOB_ID}/${path}`, body);
      expect(answer.status).toBe(202);
      expect(Object.keys(answer.body)).toEqual(['request-id']);
      expect(dispatcher.operations.get(answer.body['request-id'] as never)?.request).toEqual(request);
    }
  });

  test('a trigger id of the client is used, and its result told in the form of Flink', async () => {
    const accepted = await post(`/jobs/${JOB_ID}/savepoints`, { triggerId: id });
    expect(accepted.body).toEqual({ 'request-id': id });
    const status = async () => (await call(leader, 'GET', `/v1/jobs/${JOB_ID}/savepoints/${id}`)).body;
    expect(await status()).toEqual({ status: { id: 'IN_PROGRESS' }, operation: null });
    const operation = dispatcher.operations.get(id as never);
    if (operation === undefined) throw new Error('not begun');
    operation.view = { status: 'COMPLETED', checkpointId: 7, location: 's3://b/savepoint-1' };
    expect(await status()).toEqual({ status: { id: 'COMPLETED' }, operation: { location: 's3://b/savepoint-1' } });
    operation.view = { status: 'COMPLETED', failure: { code: 'TIMEOUT', message: 'it expired' } };
    expect(await status()).toEqual({
      status: { id: 'COMPLETED' },
      operation: { 'failure-cause': { class: 'millrace.TIMEOUT', 'stack-trace': 'it expired' } },
    });
  });

  test('a checkpoint on request tells its id', async () => {
    await post(`/jobs/${JOB_ID}/checkpoints`, { triggerId: id });
    const operation = dispatcher.operations.get(id as never);
    if (operation === undefined) throw new Error('not begun');
    operation.view = { status: 'COMPLETED', checkpointId: 7 };
    const answer = await call(leader, 'GET', `/jobs/${JOB_ID}/checkpoints/${id}`);
    expect(answer.body).toEqual({ status: { id: 'COMPLETED' }, operation: { checkpointId: 7 } });
  });

  test('a disposal is answered 200, and ends with nothing more to say', async () => {
    const answer = await post('/savepoint-disposal', { 'savepoint-path': 's3://b/savepoint-1', triggerId: id });
    expect(answer).toMatchObject({ status: 200, body: { 'request-id': id } });
    const operation = dispatcher.operations.get(id as never);
    if (operation === undefined) throw new Error('not begun');
    operation.view = { status: 'COMPLETED' };
    const status = await call(leader, 'GET', `/savepoint-disposal/${id}`);
    expect(status.body).toEqual({ status: { id: 'COMPLETED' }, operation: {} });
  });

  test.each([
    ['POST', `/jobs/${'e'.repeat(32)}/savepoints`, {}, 404],
    ['POST', `/jobs/${JOB_ID}/savepoints`, { 'target-directory': 'ftp://x' }, 400],
    ['POST', `/jobs/${JOB_ID}/savepoints`, { 'target-directory': 7 }, 400],
    ['POST', `/jobs/${JOB_ID}/savepoints`, { triggerId: 'short' }, 400],
    ['POST', `/jobs/${JOB_ID}/savepoints`, { formatType: 'OWN' }, 400],
    ['POST', `/jobs/${JOB_ID}/stop`, { drain: 'yes' }, 400],
    ['POST', `/jobs/${JOB_ID}/checkpoints`, { checkpointType: 'HALF' }, 400],
    ['POST', '/jobs/nonsense/stop', {}, 400],
    ['POST', '/savepoint-disposal', {}, 400],
    ['GET', `/jobs/${JOB_ID}/savepoints/${'0'.repeat(32)}`, undefined, 404],
    ['GET', `/jobs/${JOB_ID}/savepoints/nonsense`, undefined, 400],
    ['GET', `/jobs/${JOB_ID}/checkpoints/details/nonsense`, undefined, 400],
  ])('%s %s with %j is refused with %i', async (method, path, body, status) => {
    const answer = await call(leader, method, path, body === undefined ? {} : json(body));
    expect(answer.status).toBe(status);
    expect(answer.body).toHaveProperty('errors');
  });

  test('a job that does not run is a conflict', async () => {
    dispatcher.status = 'FINISHED';
    expect((await post(`/jobs/${JOB_ID}/savepoints`, {})).status).toBe(409);
    expect((await post(`/jobs/${JOB_ID}/stop`, {})).status).toBe(409);
  });

  test('a job starts from a savepoint, claimed or not; the mode that leaves it open is refused', async () => {
    const jar = await dispatcher.uploadJar('job.mjs', new Uint8Array([1]));
    const run = (body: object) => post(`/jars/${jar.id}/run`, body);
    await run({ savepointPath: 's3://b/s', claimMode: 'CLAIM', allowNonRestoredState: true });
    await run({ savepointPath: 's3://b/s', restoreMode: 'no_claim' });
    expect(dispatcher.runs.map(({ request }) => request)).toMatchObject([
      { savepointPath: 's3://b/s', claimMode: 'CLAIM', allowNonRestoredState: true },
      { savepointPath: 's3://b/s', claimMode: 'NO_CLAIM', allowNonRestoredState: false },
    ]);
    const legacy = await run({ savepointPath: 's3://b/s', claimMode: 'LEGACY' });
    expect(legacy.status).toBe(400);
    expect(JSON.stringify(legacy.body)).toContain('use CLAIM or NO_CLAIM');
  });
});
