import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { DEFAULT_JOB_CONFIG } from '../api/job-settings.ts';
import type { ProgramPlanner, StoredJar } from '../dispatcher/ports.ts';
import type { RunJarRequest } from '../contracts/dispatcher-gateway.ts';
import { SystemClock } from '../kernel/clock.ts';
import { digestOf } from '../kernel/digest.ts';
import { asJarId, asJobId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { IsolatedPlanner, type IsolatedPlannerOptions } from './isolated-planner.ts';
import type { PlanTask } from './plan-messages.ts';
import { buildTestPackage, type TestPackage } from './testing/test-package.ts';

let root = '';
let built: TestPackage;
let planner: IsolatedPlanner;
const sources = new Map<string, string>();

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'millrace-planner-'));
  built = await buildTestPackage(join(root, 'package'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

beforeEach(() => {
  planner = start();
});
afterEach(async () => {
  await planner.close();
  // However a program ended, nothing of it is left behind.
  expect(existsSync(join(root, 'work')) ? readdirSync(join(root, 'work')) : []).toEqual([]);
});

function start(options: Partial<IsolatedPlannerOptions> = {}): IsolatedPlanner {
  return new IsolatedPlanner(
    {
      fetchBundle: async (ref) => Buffer.from(sources.get(ref.objectKey) ?? ''),
      clock: new SystemClock(),
      random: new SystemRandom(),
      log: silentLogger,
    },
    {
      dir: join(root, 'work'),
      timeoutMs: 10_000,
      defaults: { parallelism: 1, config: DEFAULT_JOB_CONFIG },
      packageRoot: built.packageRoot,
      childUrl: built.childUrl,
      ...options,
    },
  );
}

const JOB_ID = asJobId('7a9c1d9061e6a926a33e58d0e8b8f530');

function jar(source: string): StoredJar {
  const bytes = Buffer.from(source);
  const digest = digestOf(bytes);
  sources.set(`jars/${digest}`, source);
  return {
    id: asJarId('x_job.mjs'),
    name: 'job.mjs',
    uploadedMs: 0,
    bytes: bytes.length,
    entries: [],
    objectKey: `jars/${digest}`,
    digest,
  };
}

const plan = (source: string, request: Partial<RunJarRequest> = {}, using: ProgramPlanner = planner) =>
  using.plan(jar(source), { programArgs: [], allowNonRestoredState: false, ...request }, JOB_ID);
const inspect = (source: string | Uint8Array) => planner.inspect('job.mjs', Buffer.from(source));

const WORD_COUNT = `
import { StreamExecutionEnvironment } from 'millrace';
const env = StreamExecutionEnvironment.getExecutionEnvironment();
env.fromElements('Hello World', 'Hello Flink')
  .flatMap((line) => line.toLowerCase().split(/\\W+/).filter(Boolean).map((w) => [w, 1]))
  .keyBy(([word]) => word).sum(1).print();
await env.execute('WordCount Example');
console.log('never printed');
`;

const MAIN = `
export function main(env, args) {
  env.fromElements(...args).map((x) => x).print();
}
export async function other(env) {
  env.fromElements(1).filter(Boolean).print();
  await env.execute('the other');
  throw new Error('never reached');
}
export const notAFunction = 1;
`;

test('a module that executes by itself is planned, with its name, vertices and splits', async () => {
  const graph = await plan(WORD_COUNT, { parallelism: 2 });
  expect(graph.name).toBe('WordCount Example');
  expect(graph.vertices.map((vertex) => [vertex.name, vertex.parallelism])).toEqual([
    ['Source: Collection Source', 1],
    ['Flat Map', 2],
    ['Keyed Aggregation -> Sink: Print', 2],
  ]);
  expect(graph.vertices[0]?.operators[0]?.splits).toEqual([2]);
  expect(graph).toMatchObject({ jobId: JOB_ID, bundle: { kind: 'object', parallelism: 2, args: [] } });
});

test('main gets an environment and its arguments, and need not execute', async () => {
  const graph = await plan(MAIN, { programArgs: ['a', 'b', 'c'], savepointPath: 'savepoints/1' });
  expect(graph.vertices[0]?.operators[0]?.splits).toEqual([3]);
  expect(graph.bundle).toMatchObject({ args: ['a', 'b', 'c'] });
  expect(graph.restoreFrom).toEqual({ metadataKey: 'savepoints/1', allowNonRestoredState: false });
});

test('the entry class chooses an export; an unknown one is answered with those there are', async () => {
  const graph = await plan(MAIN, { entryClass: 'other' });
  expect(graph.name).toBe('the other');
  expect(graph.bundle).toMatchObject({ entryClass: 'other' });
  for (const entryClass of ['WordCount', 'notAFunction', 'toString', '__proto__']) {
    await expect(plan(MAIN, { entryClass })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: `job.mjs has no entry "${entryClass}"`,
      hint: expect.stringContaining('main, other'),
    });
  }
  await expect(plan(WORD_COUNT, { entryClass: 'WordCount' })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringContaining('runs its job while it is loaded'),
  });
});

test('a default export and a class with a static main are entries', async () => {
  const graph = await plan('export default (env) => { env.fromElements(1).print(); }');
  expect(graph.vertices).toHaveLength(1);
  const program =
    'export class WordCount { static main(env) { env.fromElements(1).print(); return env.execute("c"); } }';
  expect((await plan(program, { entryClass: 'WordCount' })).name).toBe('c');
});

test('inspecting lists what can be run, and runs nothing to its end', async () => {
  expect(await inspect(MAIN)).toEqual({ entries: ['main', 'other'] });
  expect(await inspect(WORD_COUNT)).toEqual({ entries: [] });
});

test('what is no job is refused with the reason and the line', async () => {
  const refused = (message: RegExp) => ({ code: 'PROGRAM', message: expect.stringMatching(message) });
  await expect(inspect('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: 'job.mjs is empty' });
  await expect(inspect(Uint8Array.of(0x50, 0x4b, 3, 4, 0))).rejects.toMatchObject(refused(/zip archive/));
  await expect(inspect(Uint8Array.of(0xff, 0xfe, 0xfd))).rejects.toMatchObject(refused(/not text in UTF-8/));
  await expect(inspect('export const a = 1;\nexport function main() {\n  const = 3;\n}\n')).rejects.toMatchObject(
    refused(/cannot be loaded: SyntaxError: .*\(job\.mjs:3: const = 3;\)/),
  );
  await expect(inspect('\nimport { x } from "left-pad";')).rejects.toMatchObject({
    ...refused(/Cannot find package 'left-pad' imported from job\.mjs/),
    hint: expect.stringContaining('Pack the program'),
  });
  await expect(inspect('import { nope } from "millrace"; nope();')).rejects.toMatchObject(
    refused(/does not provide an export named 'nope' \(job\.mjs:1\)/),
  );
  await expect(inspect('\nmodule.exports = {};')).rejects.toMatchObject({
    ...refused(/module is not defined in ES module scope \(job\.mjs:2:1\)/),
    hint: expect.stringContaining('ES module'),
  });
  await expect(inspect('export const x = 1;')).rejects.toMatchObject(refused(/exports no function and does not call/));
  await expect(plan('export const x = 1;')).rejects.toMatchObject(refused(/exports no function and does not call/));
});

test('a program that throws is refused with message and place, in its own name', async () => {
  const error: unknown = await plan('export function main(env) {\n  throw new TypeError("no luck");\n}').catch(
    (e) => e,
  );
  expect(error).toMatchObject({
    code: 'PROGRAM',
    message: 'job.mjs failed while it built the job: TypeError: no luck (job.mjs:2:9)',
  });
  const { stack } = error as Error;
  expect(stack).toContain('at main (job.mjs:2:9)');
  expect(stack).not.toContain(join(root, 'work'));
  await expect(plan('export function main(env) {\n env.fromElements(1).map(1);\n}')).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringMatching(/map\(\) needs a function, not 1 \(job\.mjs:2:/),
  });
  await expect(plan('export function main(env) { env.setParallelism(0) }')).rejects.toMatchObject({
    message: expect.stringContaining('from 1 to 32768, not 0'),
  });
  await expect(plan('export function main(env) {}')).rejects.toMatchObject({
    code: 'PROGRAM',
    message: 'job.mjs built no job: no stream ends in a sink',
  });
  await expect(
    plan(
      'export async function main() { Promise.reject(new Error("lost")); await new Promise((r) => setTimeout(r, 1000)); }',
    ),
  ).rejects.toMatchObject({ code: 'PROGRAM', message: expect.stringContaining('lost') });
});

test('a program that hangs is ended in time, whether it waits or spins', async () => {
  const impatient = start({ timeoutMs: 700 });
  await expect(plan('export async function main() { await new Promise(() => {}); }')).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringContaining('waits for something that can no longer happen'),
  });
  for (const body of ['for (;;);', 'setInterval(() => {}, 10); await new Promise(() => {});']) {
    await expect(plan(`export async function main() { ${body} }`, {}, impatient)).rejects.toMatchObject({
      code: 'PROGRAM',
      message: expect.stringMatching(/did not build its job within 700 ms/),
    });
  }
  await impatient.close();
});

test('a program cannot end the server: exit, signals and memory end its own process at most', async () => {
  await expect(plan('export function main() { console.log("bye"); process.exit(3); }')).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringContaining('process.exit, code 3'),
  });
  await expect(
    plan(
      'export async function main() { process.kill(process.pid, "SIGTERM"); await new Promise((r) => setTimeout(r, 5000)); }',
    ),
  ).rejects.toMatchObject({ code: 'PROGRAM', message: expect.stringContaining('was ended by SIGTERM') });
  const small = start({ heapBytesMax: 32 * 1024 * 1024 });
  for (const grow of [
    '[]; for (;;) all.push(new Array(1000).fill({}))',
    'new Map(); for (let i = 0; ; i++) all.set("k" + i, {})',
  ]) {
    await expect(plan(`export function main() { const all = ${grow}; }`, {}, small)).rejects.toMatchObject({
      code: 'PROGRAM',
      message: expect.stringContaining('needs more than 32 MB'),
    });
  }
  await small.close();
});

test('what a program starts ends with it', async () => {
  const pidFile = join(root, 'grandchild.pid');
  await plan(`
    import { spawn } from 'node:child_process';
    import { writeFileSync } from 'node:fs';
    export function main(env) {
      const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
      writeFileSync(${JSON.stringify(pidFile)}, String(child.pid));
      env.fromElements(1).print();
    }`);
  // A container without an init process keeps the dead as zombies: they count as ended.
  const alive = () => {
    const stat = `/proc/${readFileSync(pidFile, 'utf8')}/stat`;
    return existsSync(stat) && !/\) Z /.test(readFileSync(stat, 'utf8'));
  };
  await expect.poll(alive).toBe(false);
});

test('a program that spins ends in time even when the server is gone', async () => {
  const bundle = join(root, 'spins.mjs');
  writeFileSync(bundle, 'export function main() { for (;;); }');
  const child = fork(fileURLToPath(built.childUrl), [], { serialization: 'advanced' });
  const task: PlanTask = {
    bundleName: 'spins.mjs',
    moduleUrl: pathToFileURL(bundle).href,
    libraryUrl: pathToFileURL(join(built.packageRoot, 'dist/library.js')).href,
    entryClass: undefined,
    args: [],
    defaults: { parallelism: 1, config: DEFAULT_JOB_CONFIG },
    mode: 'plan',
    timeLimitMs: 500,
  };
  child.send(task);
  const [code, killedBy] = await once(child, 'exit');
  expect([code, killedBy]).toEqual([null, 'SIGKILL']);
});

test('a main that builds another graph each time is refused before anything runs', async () => {
  const source = `export function main(env) {
    let s = env.fromElements(1);
    for (let i = 0; i < Math.random() * 1e6 % 1000; i++) s = s.map((x) => x);
    s.print();
  }`;
  await expect(plan(source)).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringContaining('two different graphs'),
  });
  await expect(
    plan('export const main = (env) => { env.fromElements(1).print().name("at " + process.hrtime.bigint()); }'),
  ).rejects.toMatchObject({ message: expect.stringMatching(/Sink: at \d+ \(1\); and: /) });
});

test('a source that does not find its input says so; splits that are not data are refused', async () => {
  const withSplits = (body: string) => `export function main(env) {
    env.fromSource({ name: 's', boundedness: 'BOUNDED', enumerateSplits() { ${body} }, createReader() {} }).print();
  }`;
  await expect(plan(withSplits('throw new Error("no such folder")'))).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringContaining('no such folder'),
  });
  await expect(plan(withSplits('return [() => {}]'))).rejects.toMatchObject({
    message: expect.stringContaining('splits must be plain data'),
  });
  await expect(plan(withSplits('return 5'))).rejects.toMatchObject({ message: expect.stringContaining('no array') });
});

test('a request beyond the limits is refused before anything runs', async () => {
  for (const parallelism of [0, -1, 1.5, 32_769]) {
    await expect(plan(MAIN, { parallelism })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  const busy = start({ timeoutMs: 2_000, concurrent: 1 });
  const many = Array.from({ length: 40 }, () => plan('export function main() { for (;;); }', {}, busy));
  const settled = Promise.allSettled(many);
  await expect(many[39]).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await busy.close();
  const outcomes = await settled;
  expect(outcomes.every((outcome) => outcome.status === 'rejected')).toBe(true);
});

test('much output neither blocks the program nor fills the server', async () => {
  const source =
    'export function main(env) { for (let i = 0; i < 20000; i++) console.log("x".repeat(100)); env.fromElements(1).print(); }';
  expect((await plan(source)).vertices).toHaveLength(1);
});
