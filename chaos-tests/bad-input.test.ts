import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { checkOutput } from '../src/main/demo/check-output.ts';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { clusterLines } from './checkers/cluster-logs.ts';
import { writeInputText } from './input-text.ts';
import { type Answer, RestCaller } from './rest-caller.ts';

const LIMIT_BYTES = 64 * 1024;
const PROGRAM_TIMEOUT_MS = 6_000;
const SLOT_TIMEOUT_MS = 4_000;

let dir: string;
let cluster: LocalCluster;
let rest: RestCaller;
let goodJar: string;
let before: { jobs: string[]; jars: string[] };

beforeAll(async () => {
  dir = makeTempFolder('bad-input');
  cluster = await LocalCluster.start({
    dir,
    masters: 3,
    workers: 1,
    slotsPerWorker: 2,
    config: [
      `rest.server.max-content-length=${LIMIT_BYTES}`,
      `client.program.timeout=${PROGRAM_TIMEOUT_MS} ms`,
      `slot.request.timeout=${SLOT_TIMEOUT_MS} ms`,
    ],
  });
  rest = new RestCaller(cluster);
  await until(
    'the worker to be registered',
    async () => (await rest.call('GET', '/overview')).body['slots-total'] === 2,
    {
      timeoutMs: 60_000,
    },
  );
  goodJar = await rest.jar('word-count.mjs', await packJob(join(packageRoot(), 'examples/word-count-entry.ts')));
});

afterAll(async () => {
  await cluster?.kill();
  removeTempFolder(dir);
});

beforeEach(async () => {
  before = await rest.inventory();
});

/** Whatever was asked for, the cluster does its work afterwards. */
afterEach(async () => {
  const run = await rest.run(goodJar, { entryClass: 'WordCount' });
  expect(run.status, run.errors).toBe(200);
  expect(await rest.end(String(run.body.jobid))).toBe('FINISHED');
});

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly says: RegExp;
}

/** Refused in these words, without a stack, and nothing is left of it. */
async function expectRefused(answer: Answer, { status, code, says }: Refusal): Promise<void> {
  expect(answer).toMatchObject({ status, body: { code } });
  expect(answer.errors).toMatch(says);
  expect(answer.errors).not.toMatch(/\n\s+at /);
  expect(answer.errors, 'a folder of the server').not.toContain(dir);
  expect(answer.errors.length).toBeLessThan(2_000);
  expect(await rest.inventory()).toEqual(before);
}

describe('a jar that is none', () => {
  test.each([
    ['a zip archive', 'app.jar', Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0), /app\.jar is a zip archive.*ES module/],
    ['binary data', 'a.mjs', Uint8Array.of(0xff, 0xfe, 0xfd), /a\.mjs is not an ES module: it is not text/],
    ['prose', 'notes.txt', 'Dear diary, no program', /notes\.txt cannot be loaded: SyntaxError.*notes\.txt:1/],
    [
      'a syntax error',
      'a.mjs',
      'export function main() {\n  const = 3;\n}',
      /Unexpected token '='.*a\.mjs:2: const = 3/,
    ],
    [
      'a missing package',
      'a.mjs',
      'import x from "left-pad"; x();',
      /Cannot find package 'left-pad'.*Pack the program/,
    ],
    ['a missing file', 'a.mjs', 'import x from "./other.mjs"; x();', /Cannot find module '\.\/other\.mjs'.*Pack the/],
    ['nothing to run', 'a.mjs', 'export const x = 1;', /exports no function/],
    ['one long wrong word', 'a.mjs', 'x'.repeat(LIMIT_BYTES - 100), /a\.mjs cannot be loaded: ReferenceError/],
  ])('%s', async (_what, name, content, says) => {
    await expectRefused(await rest.upload(name, content), { status: 400, code: 'PROGRAM', says });
  });
});

describe('an upload that is none', () => {
  const wrong = (says: RegExp): Refusal => ({ status: 400, code: 'INVALID_ARGUMENT', says });

  test('an empty body', async () => {
    await expectRefused(await rest.call('POST', '/jars/upload'), wrong(/multipart\/form-data.*jarfile=@/));
  });

  test('a form without a file', async () => {
    const form = new FormData();
    form.append('comment', 'where is it?');
    await expectRefused(await rest.call('POST', '/jars/upload', { body: form }), wrong(/holds no file/));
  });

  test('an empty file', async () => {
    await expectRefused(await rest.upload('a.mjs', ''), wrong(/"a\.mjs" is empty/));
  });

  test('a file that is too large, whichever master is asked', async () => {
    for (const master of cluster.liveMasters) {
      for (const bytes of [LIMIT_BYTES + 1, 20 * LIMIT_BYTES]) {
        const form = new FormData();
        // Its beginning would be a program.
        form.append('jarfile', new Blob([`export function main() {}\n${' '.repeat(bytes)}`]), 'large.mjs');
        const answer = await rest.call('POST', '/jars/upload', { body: form }, master);
        const says = new RegExp(`larger than ${LIMIT_BYTES} bytes.*rest\\.server\\.max-content-length`);
        await expectRefused(answer, { status: 413, code: 'TOO_LARGE', says });
      }
    }
  });

  test.each([
    ['..', /is empty|has no name/],
    ['', /has no name/],
    ['nul\u0000.mjs', /contains control characters/],
    [`${'x'.repeat(300)}.mjs`, /at most 255 are allowed/],
  ])('a file name that is none: %j', async (name, says) => {
    await expectRefused(await rest.upload(name, 'export function main(env) {}'), wrong(says));
  });

  test.each(['../../etc/passwd', '..\\..\\boot.ini', '/etc/passwd', '%2e%2e%2fescaped', 'a/../../b.mjs'])(
    'a path in the file name is no path: %j',
    async (name) => {
      const jarId = await rest.jar(name, 'export function main(env) { env.fromElements(1).print(); }');
      expect(jarId).toMatch(/^[0-9a-f-]{36}_[A-Za-z0-9._-]+$/);
      expect((await rest.call('DELETE', `/jars/${jarId}`)).status).toBe(200);
      expect(await rest.inventory()).toEqual(before);
    },
  );
});

describe('what does not exist', () => {
  const NO_JOB = '0123456789abcdef0123456789abcdef';
  const NO_JAR = '01234567-89ab-4cde-8f01-23456789abcd_gone.mjs';
  test.each([
    ['an unknown job', 'GET', `/jobs/${NO_JOB}`, /There is no job 0123/],
    ['an unknown job to cancel', 'PATCH', `/jobs/${NO_JOB}`, /There is no job 0123/],
    ['checkpoints of an unknown job', 'GET', `/jobs/${NO_JOB}/checkpoints`, /There is no job 0123/],
    ['an unknown jar to run', 'POST', `/jars/${NO_JAR}/run`, /there is no jar "01234567.*gone\.mjs"/],
    ['an unknown jar to delete', 'DELETE', `/jars/${NO_JAR}`, /there is no jar/],
    ['a path for a jar', 'POST', '/jars/..%2F..%2Fetc%2Fpasswd/run', /.+/],
  ])('%s', async (_what, method, path, says) => {
    const answer = await rest.call(method, path);
    const { status } = answer;
    expect([400, 404]).toContain(status);
    await expectRefused(answer, { status, code: status === 404 ? 'NOT_FOUND' : 'INVALID_ARGUMENT', says });
    if (!path.includes('%2F')) expect(status).toBe(404);
  });

  test('a job id that is none', async () => {
    const says = /"xyz" is not a job id: 32 lower-case hex digits/;
    await expectRefused(await rest.call('GET', '/jobs/xyz'), { status: 400, code: 'INVALID_ARGUMENT', says });
  });

  test('an unknown entry class, answered with those there are', async () => {
    const says = /word-count\.mjs has no entry "Nope".*It exports: WordCount/;
    const answer = await rest.run(goodJar, { entryClass: 'Nope' });
    await expectRefused(answer, { status: 400, code: 'INVALID_ARGUMENT', says });
  });
});

describe('a program that is wrong', () => {
  test.each([
    ['throws', 'throw new Error("no luck today");', /failed while it built the job: no luck today.*bad\.mjs:1/],
    ['waits for ever', 'await new Promise((done) => setTimeout(done, 1e9));', /did not build its job within 6000 ms/],
    ['never stops', 'for (;;);', /did not build its job within 6000 ms/],
    ['ends its process', 'process.exit(3);', /ended its process \(process\.exit, code 3\)/],
    [
      'is not deterministic',
      'env.fromElements(1).map((x) => x).name("at " + Math.random()).print(); await env.execute("r");',
      /built two different graphs.*must build the same graph each time/,
    ],
    ['sets parallelism 0', 'env.setParallelism(0);', /parallelism must be a whole number from 1 to 32768, not 0/],
    [
      'sets a parallelism over its maximum',
      'env.setMaxParallelism(4); env.setParallelism(8); env.fromElements(1).map((x) => x).print(); await env.execute("r");',
      /parallelism 8 is over the maximum parallelism 4/,
    ],
    ['builds nothing', '', /built no job: no stream ends in a sink/],
  ])('%s', async (_what, body, says) => {
    const jarId = await rest.jar('bad.mjs', `export async function main(env) { ${body} }`);
    before = await rest.inventory();
    await expectRefused(await rest.run(jarId, {}), { status: 400, code: 'PROGRAM', says });
    expect((await rest.call('DELETE', `/jars/${jarId}`)).status).toBe(200);
  });
});

describe('a request that is wrong', () => {
  test.each([
    ['parallelism 0', { parallelism: 0 }, /parallelism: .*>=1/],
    ['parallelism over the maximum', { parallelism: 32_769 }, /parallelism: .*<=32768/],
    ['a parallelism that is no number', { parallelism: 'many' }, /parallelism: .*number/],
    ['a job id that is none', { jobId: '../../etc' }, /jobId: a job id is 32 lower-case hex digits/],
  ])('%s', async (_what, body, says) => {
    const answer = await rest.run(goodJar, { entryClass: 'WordCount', ...body });
    await expectRefused(answer, { status: 400, code: 'INVALID_ARGUMENT', says });
  });

  test('a body that is no JSON', async () => {
    const init = { body: '{', headers: { 'content-type': 'application/json' } };
    const answer = await rest.call('POST', `/jars/${goodJar}/run`, init);
    await expectRefused(answer, { status: 400, code: 'INVALID_ARGUMENT', says: /not valid JSON/ });
  });
});

test('a job that needs more slots than there are waits, says for how many, and fails after slot.request.timeout', async () => {
  const run = await rest.run(goodJar, { entryClass: 'WordCount', parallelism: 7 });
  expect(run.status, run.errors).toBe(200);
  const jobId = String(run.body.jobid);
  await until('the job to say what it waits for', async () => {
    const { body } = await rest.call('GET', `/jobs/${jobId}`);
    return body['waiting-for'] === 'waiting for 5 more slots; the cluster has 2 in all';
  });
  expect(await rest.end(jobId)).toBe('FAILED');
  const { body } = await rest.call('GET', `/jobs/${jobId}/exceptions`);
  expect(body['root-exception']).toMatch(
    new RegExp(`needs 7 slots and did not get them within ${SLOT_TIMEOUT_MS} ms: the cluster has 2 slots`),
  );
  const inventory = await rest.inventory();
  expect(inventory.jars).toEqual(before.jars);
  expect(inventory.jobs).toEqual([...before.jobs, jobId].sort());
});

test('one job id, or one Idempotency-Key, runs once: sent twice, to different masters, before and after a failover', async () => {
  const jarId = await rest.jar('files.mjs', await packJob(join(packageRoot(), 'examples/word-count-files.ts')));
  const input = join(dir, 'input');
  writeInputText(input, { lines: 1_000, files: 2 });
  const request = (output: string) => {
    mkdirSync(join(dir, output));
    const paths = ['--input', input, '--output', join(dir, output)];
    return { programArgsList: [...paths, '--parallelism', '1', '--rate', '150'] };
  };
  const jobId = 'feedfacefeedfacefeedfacefeedface';
  const byId = { ...request('by-id'), jobId };
  const byKey = request('by-key');
  const key = { 'idempotency-key': 'order-4711' };

  /** Both requests to every master that lives, all at once. */
  const sendToAll = async () => {
    const answers = await Promise.all(
      cluster.liveMasters.flatMap((master) => [rest.run(jarId, byId, {}, master), rest.run(jarId, byKey, key, master)]),
    );
    for (const answer of answers) expect(answer.status, answer.errors).toBe(200);
    return [...new Set(answers.map(({ body }) => String(body.jobid)))].sort();
  };
  const first = await sendToAll();
  expect(first).toHaveLength(2);
  expect(first).toContain(jobId);
  const other = first.find((id) => id !== jobId) ?? '';
  await until('both jobs to run', async () =>
    (await Promise.all(first.map((id) => rest.call('GET', `/jobs/${id}`)))).every(
      ({ body }) => body.state === 'RUNNING',
    ),
  );

  const leader = await until('a leader', () => cluster.leader());
  await leader.process.kill('SIGKILL');
  expect(await sendToAll()).toEqual(first);
  for (const id of first) expect(await rest.end(id)).toBe('FINISHED');
  await cluster.addMaster();
  expect(await sendToAll()).toEqual(first);

  expect(checkOutput(input, join(dir, 'by-id'))).toMatchObject({ problems: [], pass: true });
  expect(checkOutput(input, join(dir, 'by-key'))).toMatchObject({ problems: [], pass: true });
  const lines = clusterLines(cluster.masters);
  for (const id of [jobId, other])
    expect(lines.filter((line) => line.msg === 'job submitted' && line.jobId === id)).toHaveLength(1);
  expect((await rest.inventory()).jobs).toEqual([...before.jobs, ...first].sort());
});
