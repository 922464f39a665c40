import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { SystemClock } from '../../src/kernel/clock.ts';
import { SeededRandom } from '../../src/kernel/random.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { guardGroup, makeTempFolder, removeTempFolder, unguardGroup } from '../../test-support/guardian.ts';
import { until } from '../../test-support/until.ts';
import { put, watching } from './coordination.contract.ts';
import { LmdbCoordination } from './lmdb-coordination.ts';

/** Real processes that share one store and are killed at any moment, several at once. */

type Message =
  | { readonly kind: 'ready' | 'holding' }
  | { readonly kind: 'added'; readonly revision: string; readonly value: number }
  | { readonly kind: 'doubt'; readonly code: string };

let programs: string;
let directory: string;
let store: LmdbCoordination;
const children = new Set<ChildProcess>();

beforeAll(async () => {
  programs = makeTempFolder('lmdb-child');
  const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  symlinkSync(here('../../node_modules'), join(programs, 'node_modules'));
  await build({
    entryPoints: [here('lmdb-child.fixture.ts')],
    outfile: join(programs, 'child.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    packages: 'external',
  });
});

afterAll(() => removeTempFolder(programs));

beforeEach(async () => {
  directory = makeTempFolder('coordination');
  store = await LmdbCoordination.start({ clock: new SystemClock(), log: silentLogger }, { directory });
});

afterEach(async () => {
  await Promise.all([...children].map(kill));
  await store.close();
  removeTempFolder(directory);
});

function start(name: string, mode: 'count' | 'hold', onMessage: (message: Message) => void): ChildProcess {
  const child = fork(join(programs, 'child.mjs'), [directory, name, mode], { detached: true, execArgv: [] });
  guardGroup(child.pid as number);
  children.add(child);
  child.on('message', (message) => onMessage(message as Message));
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  children.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
  unguardGroup(child.pid as number);
}

test('processes killed in the middle of their transactions lose nothing they were told, and block nobody', async () => {
  const random = new SeededRandom(7);
  const added = new Map<number, bigint>();
  const seen = watching(store, 'shared', (await store.list('')).revision);
  let names = 0;
  const rounds = 12;
  for (let round = 0; round < rounds; round++) {
    const before = added.size;
    const crew = Array.from({ length: 3 }, () =>
      start(`c${names++}`, 'count', (message) => {
        if (message.kind !== 'added') return;
        // No two processes were ever told the same count: no update is lost.
        expect(added.has(message.value)).toBe(false);
        added.set(message.value, BigInt(message.revision));
      }),
    );
    // At least so much progress, then at a random moment, two at once, the third a little later.
    const enough = before + 20 + random.int(60);
    await until('the crew to make progress', () => added.size > enough, { timeoutMs: 30_000, everyMs: 1 });
    await Promise.all(crew.slice(0, 2).map(kill));
    await until('the survivor to go on', () => added.size > enough + 30, { timeoutMs: 30_000, everyMs: 1 });
    await Promise.all(crew.slice(2).map(kill));
    // The store answers at once after all have died.
    await store.txn({ guards: [], then: [put('round', String(round))] });
  }

  const shared = Number((await store.get('shared'))?.value);
  const { entries: own } = await store.list('own/');
  const { entries: log, revision } = await store.list('log/');
  // Whatever was told happened; what happened and was not told is at most the one in flight of each process.
  expect(shared).toBeGreaterThanOrEqual(Math.max(...added.keys()));
  expect(shared - added.size).toBeLessThanOrEqual(names);
  // Transactions are whole: what they write together agrees.
  expect(own.reduce((sum, entry) => sum + Number(entry.value), 0)).toBe(shared);
  expect(log.map((entry) => Number(entry.key.slice(4)))).toEqual(Array.from({ length: shared }, (_, i) => i + 1));
  // The history is linear: later counts have later revisions, and nobody was told another's revision.
  const logged = log.map((entry) => entry.modRevision);
  for (let i = 1; i < logged.length; i++) expect(logged[i]).toBeGreaterThan(logged[i - 1] as bigint);
  for (const [value, told] of added) expect(logged[value - 1]).toBe(told);
  // Every revision belongs to one transaction: the counts, the marks of the rounds, and the empty store.
  expect(revision).toBe(BigInt(shared + rounds + 1));
  await until('the watcher to see the last count', () => seen.length >= shared);
  expect(seen.map((event) => (event.kind === 'put' ? Number(event.entry.value) : event.kind))).toEqual(
    Array.from({ length: shared }, (_, i) => i + 1),
  );
});

test('a process frozen with the write lock costs others UNAVAILABLE, not their life; its death frees the lock', async () => {
  await store.txn({ guards: [], then: [put('k', 'before')] });
  let holding = false;
  const child = start('holder', 'hold', (message) => {
    holding = message.kind === 'holding';
  });
  await until('the child to hold the lock', () => holding);
  child.kill('SIGSTOP');

  const startMs = performance.now();
  let ticks = 0;
  const timer = setInterval(() => ticks++, 10);
  const blocked = store.txn({ guards: [], then: [put('k', 'given up')] });
  // Reading needs no lock.
  expect((await store.get('k'))?.value).toBe('before');
  await expect(blocked).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  clearInterval(timer);
  expect(performance.now() - startMs).toBeLessThan(1_500);
  // The event loop went on meanwhile.
  expect(ticks).toBeGreaterThan(40);
  // A process that starts now does not freeze either, and can be closed.
  const options = { directory, startDeadlineMs: 300 };
  const newcomer = LmdbCoordination.start({ clock: new SystemClock(), log: silentLogger }, options);
  await expect(newcomer).rejects.toMatchObject({ code: 'UNAVAILABLE' });

  await kill(child);
  await store.txn({ guards: [], then: [put('other', 'after')] });
  // Neither what the dead had begun nor what was given up has happened.
  expect((await store.get('k'))?.value).toBe('before');
  expect((await store.list('')).entries.map((entry) => entry.key)).toEqual(['k', 'other']);
});

test('a lease of a killed process expires at its deadline, and the others see it go', async () => {
  const lease = await store.grantLease(400);
  const { revision } = await store.txn({ guards: [], then: [put('leader', 'me', lease.id)] });
  const other = await LmdbCoordination.start({ clock: new SystemClock(), log: silentLogger }, { directory });
  const seen = watching(other, 'leader', revision);
  await until('the lease to expire', () => seen.length > 0);
  expect(seen).toEqual([{ kind: 'delete', key: 'leader', revision: revision + 1n }]);
  await other.close();
});
