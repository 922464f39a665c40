import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster, logLines, type Worker } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import { RestCaller } from './rest-caller.ts';

let dir: string;
let tmp: string;
let cluster: LocalCluster;
let rest: RestCaller;
let jar: string;

beforeAll(async () => {
  dir = makeTempFolder('state');
  tmp = join(dir, 'worker-tmp');
  cluster = await LocalCluster.start({
    dir,
    masters: 1,
    workers: 1,
    slotsPerWorker: 1,
    config: [
      `io.tmp.dirs=${tmp}`,
      'taskmanager.memory.slot-heap.size=96 MiB',
      'taskmanager.memory.state-heap.fraction=0.4',
      'state.storage.fs.memory-threshold=1 b',
    ],
  });
  rest = new RestCaller(cluster);
  jar = await rest.jar('state.mjs', await packJob(join(packageRoot(), 'chaos-tests/jobs/state-jobs.ts')));
});

afterAll(async () => {
  await cluster?.kill();
  removeTempFolder(dir);
});

async function run(entryClass: string, args: readonly string[] = []): Promise<string> {
  const answer = await rest.run(jar, { entryClass, programArgsList: args });
  expect(answer.status, answer.errors).toBe(200);
  return String(answer.body.jobid);
}

async function failure(jobId: string): Promise<string> {
  expect(await rest.end(jobId)).toBe('FAILED');
  return String((await rest.call('GET', `/jobs/${jobId}/exceptions`)).body['root-exception']);
}

const worker = () => cluster.liveWorkers[0] as Worker;
/** The folders of workers, living or killed. */
const folders = () => readdirSync(tmp).filter((name) => name.startsWith('taskmanager-'));
const files = (part: string): string[] =>
  folders().flatMap((folder) => {
    const path = join(tmp, folder, part);
    return existsSync(path) ? readdirSync(path, { recursive: true }).map(String) : [];
  });
const databases = () => files('slots').filter((name) => name.endsWith('data.mdb'));

test('state that outgrows its part of the heap fails the task with what to do, before the process dies of memory', async () => {
  const { pid } = worker().process;
  const message = await failure(await run('Hoard', ['hashmap', '0']));
  expect(message).toMatch(/operator "Remember" .* failed to keep its state: state in memory takes about [\d.]+ MiB/);
  expect(message).toMatch(/more than the limit of 38\.4 MiB \(largest: operator [0-9a-f]{32} subtask 0: /);
  expect(message).toMatch(/\nHint: .*state\.backend\.type: lmdb.*time-to-live.*taskmanager\.memory\.slot-heap\.size/);
  // What no state counts meets the guard of the heap, which ends the slot and nothing else.
  const leak = await failure(await run('Leak'));
  expect(leak).toMatch(
    /the slot ran out of memory: its heap is limited to 96 MiB[\s\S]*\nHint: Raise taskmanager\.memory\.slot-heap/,
  );
  expect(worker().process).toMatchObject({ alive: true, pid });
});

test('the same on disk goes on, in files below io.tmp.dirs that go with the job', async () => {
  const jobId = await run('Hoard', ['lmdb', '250000']);
  await until('the database', () => databases().length === 1, { timeoutMs: 60_000 });
  expect(await rest.end(jobId)).toBe('FINISHED');
  await until('the database to go', () => databases().length === 0);
});

test.each(['hashmap', 'lmdb'])('a task that comes back to its worker restores from its disk (%s)', async (backend) => {
  const jobId = await run('FailOnce', [backend, join(dir, `failed-${backend}`)]);
  expect(await rest.end(jobId)).toBe('FINISHED');
  expect(existsSync(join(dir, `failed-${backend}`))).toBe(true);
  const restored = logLines(readFileSync(worker().process.logFile, 'utf8')).filter(
    ({ msg }) => msg === 'state restored',
  );
  const last = restored.at(-1);
  expect(last?.local).toBe(last?.objects);
  expect(Number(last?.local)).toBeGreaterThan(0);
  await until('the copies to go with the job', () => files('local-state').length === 0 && databases().length === 0);
});

test('what a killed worker had on disk goes with the start of the next; a stopped one leaves nothing', async () => {
  const jobId = await run('Hoard', ['lmdb', '0']);
  await until('the database', () => databases().length === 1, { timeoutMs: 60_000 });
  const [killed = ''] = folders();
  await worker().process.kill('SIGKILL');
  expect(databases()).toHaveLength(1);
  await cluster.addWorker();
  expect(folders()).not.toContain(killed);
  expect(folders()).toHaveLength(1);
  expect(await rest.end(jobId)).toBe('FAILED');
  await worker().process.stop();
  expect(folders()).toEqual([]);
});
