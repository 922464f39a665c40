import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { currentPlanContext } from '../api/execution-context.ts';
import { DEFAULT_JOB_CONFIG } from '../api/job-settings.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { SystemClock } from '../kernel/clock.ts';
import { digestOf } from '../kernel/digest.ts';
import { asJobId } from '../kernel/ids.ts';
import { silentLogger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { InlinePrograms } from './inline-programs.ts';
import { IsolatedPlanner } from './isolated-planner.ts';
import { buildTestPackage, type TestPackage } from './testing/test-package.ts';
import type { BundleProgramLoader } from './program-loader.ts';
import type { UserProgram } from './user-program.ts';

let root = '';
let built: TestPackage;
let dir = '';
const objects = new Map<string, Uint8Array>();
let fetches = 0;

beforeAll(async () => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'millrace-loader-')));
  built = await buildTestPackage(join(root, 'package'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeEach(() => {
  dir = mkdtempSync(join(root, 'cache-'));
  fetches = 0;
});

const fetchBundle = async (ref: { readonly objectKey: string }) => {
  fetches++;
  return objects.get(ref.objectKey) ?? new Uint8Array();
};

function loader(timeoutMs = 5_000): BundleProgramLoader {
  return new built.BundleProgramLoader(
    { fetchBundle, clock: new SystemClock(), random: new SystemRandom() },
    { dir, timeoutMs, packageRoot: built.packageRoot },
  );
}

async function planned(source: string, options: { parallelism?: number; args?: string[] } = {}): Promise<JobGraph> {
  const bytes = Buffer.from(source);
  const digest = digestOf(bytes);
  objects.set(digest, bytes);
  const planner = new IsolatedPlanner(
    { fetchBundle, clock: new SystemClock(), random: new SystemRandom(), log: silentLogger },
    {
      dir: join(root, 'plans'),
      timeoutMs: 10_000,
      defaults: { parallelism: 1, config: DEFAULT_JOB_CONFIG },
      packageRoot: built.packageRoot,
      childUrl: built.childUrl,
    },
  );
  const jar = { name: 'job.mjs', objectKey: digest, digest, bytes: bytes.length };
  const { args = [], ...request } = options;
  const graph = await planner.plan(
    jar,
    { programArgs: args, allowNonRestoredState: false, ...request },
    asJobId('1'.repeat(32)),
  );
  fetches = 0;
  return graph;
}

/** The function of the first operator of a kind. */
function functionOf(program: UserProgram, kind: 'map'): (value: unknown) => unknown {
  for (const { definition } of program.operators.values()) if (definition.kind === kind) return definition.fn;
  throw new Error(`no ${kind}`);
}

const COUNTING = `
import { StreamExecutionEnvironment } from 'millrace';
export function main(env, args) {
  let seen = 0;
  env.fromElements(...args).map((x) => [x, ++seen, env instanceof StreamExecutionEnvironment])
    .keyBy(([x]) => x).sum(1).print();
}`;

test('a slot gets the functions and key selectors of the planned job, by its ids', async () => {
  const graph = await planned(COUNTING, { parallelism: 3, args: ['a', 'b'] });
  const program = await loader().load(graph);
  expect(program.plan.fingerprint).toBe(graph.fingerprint);
  const ids = graph.vertices.flatMap((vertex) => vertex.operators.map((operator) => operator.id));
  expect([...program.operators.keys()].sort()).toEqual([...ids].sort());
  const hash = graph.edges.find((edge) => edge.partitioner === 'HASH');
  expect(program.keySelectors.get(hash?.id ?? '')?.(['k', 1])).toBe('k');
  // One copy of the library: what main gets is what the bundle imports.
  expect(functionOf(program, 'map')('a')).toEqual(['a', 1, true]);
  expect(currentPlanContext()).toBeUndefined();
});

test('each load has closures of its own, also when the module runs by itself', async () => {
  const byItself = `
    import { StreamExecutionEnvironment } from 'millrace';
    let seen = 0;
    const env = StreamExecutionEnvironment.getExecutionEnvironment();
    env.fromElements(1).map((x) => ++seen).print();
    await env.execute();`;
  for (const source of [COUNTING, byItself]) {
    const graph = await planned(source, { args: ['a'] });
    const programs = loader();
    for (let i = 0; i < 3; i++) {
      const result = functionOf(await programs.load(graph), 'map')('a');
      expect(Array.isArray(result) ? result[1] : result).toBe(1);
    }
    expect(fetches).toBe(1);
    // Nor do several slots of one thread disturb each other.
    const both = await Promise.all([loader().load(graph), programs.load(graph)]);
    for (const program of both) {
      const result = functionOf(program, 'map')('a');
      expect(Array.isArray(result) ? result[1] : result).toBe(1);
    }
  }
});

test('a program that failed to load is given another chance', async () => {
  const graph = await planned(
    'if (globalThis.notYet) throw new Error("not yet"); export const main = (env) => { env.fromElements(1).print(); };',
  );
  const programs = loader();
  (globalThis as { notYet?: boolean }).notYet = true;
  try {
    await expect(programs.load(graph)).rejects.toMatchObject({
      code: 'PROGRAM',
      message: expect.stringMatching(/cannot be loaded: not yet/),
    });
  } finally {
    delete (globalThis as { notYet?: boolean }).notYet;
  }
  expect((await programs.load(graph)).operators.size).toBe(2);
});

test('a forgotten bundle is fetched again when it is needed again', async () => {
  const graph = await planned(COUNTING, { args: ['a'] });
  const programs = loader();
  await programs.load(graph);
  if (graph.bundle.kind === 'object') await programs.forget(graph.bundle);
  expect(readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.mjs'))).toEqual([]);
  await programs.load(graph);
  expect(fetches).toBe(2);
});

test('programs loaded at once in one thread do not mix', async () => {
  const sources = [1, 2, 3].map(
    (n) => `export async function main(env) {
      for (let i = 0; i < ${10 * n}; i++) await null;
      env.fromElements(${n}).map((x) => ${n}).name('job ${n}').print();
    }`,
  );
  const graphs = await Promise.all(sources.map((source) => planned(source)));
  const programs = loader();
  const loaded = await Promise.all(graphs.map((graph) => programs.load(graph)));
  expect(loaded.map((program) => functionOf(program, 'map')(0))).toEqual([1, 2, 3]);
});

test('several loaders share a folder; a damaged copy is fetched again; no temporary file stays', async () => {
  const graph = await planned(COUNTING, { args: ['a'] });
  await Promise.all(Array.from({ length: 8 }, () => loader().load(graph)));
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' });
  expect(files.filter((file) => file.endsWith('.tmp'))).toEqual([]);
  const bundle = files.find((file) => file.endsWith('bundle.mjs')) ?? '';
  writeFileSync(join(dir, bundle), 'export function main() { throw new Error("damaged"); }');
  fetches = 0;
  await loader().load(graph);
  expect(fetches).toBe(1);
  expect(readFileSync(join(dir, bundle), 'utf8')).toBe(COUNTING);
});

test('a bundle whose bytes are not those that were planned is refused', async () => {
  const graph = await planned(COUNTING, { args: ['a'] });
  if (graph.bundle.kind !== 'object') throw new Error('unexpected');
  objects.set(graph.bundle.objectKey, Buffer.from('export function main() {}'));
  await expect(loader().load(graph)).rejects.toMatchObject({ code: 'CORRUPT' });
});

test('another graph than planned is refused and both are named', async () => {
  const graph = await planned(
    `export function main(env) {
      const s = env.fromElements(1);
      (globalThis.inTheSlot ? s.rebalance().map((x) => x) : s).print();
    }`,
  );
  (globalThis as { inTheSlot?: boolean }).inTheSlot = true;
  try {
    await expect(loader().load(graph)).rejects.toMatchObject({
      code: 'PROGRAM',
      message: expect.stringMatching(/another graph here: now .*Map.*, before .*Sink/),
    });
  } finally {
    delete (globalThis as { inTheSlot?: boolean }).inTheSlot;
  }
});

test('a main that waits for ever in a slot fails in time and does not block the next', async () => {
  const hangs = await planned(
    `export async function main(env) {
      if (globalThis.hang) await new Promise(() => {});
      env.fromElements(1).print();
    }`,
  );
  const programs = loader(200);
  (globalThis as { hang?: boolean }).hang = true;
  try {
    await expect(programs.load(hangs)).rejects.toMatchObject({
      code: 'PROGRAM',
      message: expect.stringContaining('did not build its job within 200 ms'),
    });
  } finally {
    delete (globalThis as { hang?: boolean }).hang;
  }
  expect(currentPlanContext()).toBeUndefined();
  expect((await programs.load(hangs)).operators.size).toBe(2);
});

test('inline programs are found in their own process and nowhere else', async () => {
  const graph = await planned(COUNTING, { args: ['a'] });
  const program = await loader().load(graph);
  const inline = new InlinePrograms();
  inline.add('p1', program);
  const inlineGraph: JobGraph = { ...graph, bundle: { kind: 'inline', programId: 'p1' } };
  expect(await inline.load(inlineGraph)).toBe(program);
  await expect(loader().load(inlineGraph)).rejects.toMatchObject({ code: 'PROGRAM' });
  inline.remove('p1');
  await expect(inline.load(inlineGraph)).rejects.toMatchObject({ code: 'PROGRAM' });
});
