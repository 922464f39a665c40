import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, expect, test } from 'vitest';
import { makeTempFolder, processLives, processState, removeTempFolder } from './guardian.ts';
import { ManagedProcess } from './processes.ts';
import { until } from './until.ts';

const folder = makeTempFolder('processes-test');
afterAll(() => removeTempFolder(folder));

let started = 0;
function sh(script: string): Promise<ManagedProcess> {
  return ManagedProcess.start({
    name: `sh ${++started}`,
    command: 'sh',
    args: ['-c', script],
    logFile: join(folder, `${started}.log`),
  });
}

test('a line of the log can be waited for', async () => {
  await using child = await sh('echo starting; echo "listening on 4711"; sleep 60');
  const [, port] = await child.untilLog(/listening on (\d+)/);
  expect(port).toBe('4711');
  expect(child.alive).toBe(true);
});

test('waiting for a line ends at once, with the last words, when the process ends', async () => {
  const child = await sh('echo "no configuration" >&2; exit 3');
  await expect(child.untilLog('listening', 10_000)).rejects.toThrow(/ended \(code 3\) before.*no configuration/s);
});

test('a program that does not exist is a clear error', async () => {
  const starting = ManagedProcess.start({ name: 'ghost', command: '/no/such', logFile: join(folder, 'ghost.log') });
  await expect(starting).rejects.toThrow(/cannot start ghost \(\/no\/such\)/);
});

test('kill takes the children of the process along', async () => {
  const child = await sh('sleep 60 & echo "child $!"; wait');
  const [, pid] = await child.untilLog(/child (\d+)/);
  expect(await child.kill()).toEqual({ code: null, signal: 'SIGKILL' });
  expect(child.alive).toBe(false);
  await until('the grandchild to be gone', () => !processLives(Number(pid)));
});

test('what a process leaves in its group when it ends is ended too', async () => {
  const child = await sh('sleep 60 & echo "child $!"');
  await child.exited;
  const [, pid] = await child.untilLog(/child (\d+)/);
  await until('the grandchild to be gone', () => !processLives(Number(pid)));
});

test('a paused process stands still, and goes on when resumed', async () => {
  await using child = await sh('while :; do echo tick; sleep 0.01; done');
  await child.untilLog('tick');
  await child.pause();
  const before = child.log().length;
  expect(processState(child.pid)).not.toBe('running');
  expect(child.log().length).toBe(before);
  child.resume();
  await until('more ticks', () => child.log().length > before);
});

test('stop is polite first, also to a paused process, and insists in the end', async () => {
  const polite = await sh('trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.01; done');
  await polite.untilLog('ready');
  await polite.pause();
  expect(await polite.stop()).toEqual({ code: 0, signal: null });
  expect(polite.log()).toContain('bye');

  const deaf = await sh('trap "" TERM; echo ready; while :; do sleep 0.01; done');
  await deaf.untilLog('ready');
  expect(await deaf.stop(50)).toEqual({ code: null, signal: 'SIGKILL' });
});

test('every line is delivered once, whole and in order, the last one too', async () => {
  const child = await sh(
    'for i in 1 2 3; do echo $i; sleep 0.02; done; printf "caf\\303"; sleep 0.05; printf "\\251\\nthe end"',
  );
  const lines: string[] = [];
  child.onLine((line) => lines.push(line), 5);
  await child.exited;
  await until('the last line', () => lines.includes('the end'));
  expect(lines).toEqual(['1', '2', '3', 'café', 'the end']);
});

test('a process killed with SIGKILL leaves no children and no folders behind', async () => {
  // An owner in a process of its own, as a test worker or the demonstration is.
  const bundle = await build({
    stdin: {
      contents: `
        import { makeTempFolder } from './guardian.ts';
        import { ManagedProcess } from './processes.ts';
        const folder = makeTempFolder('orphan-test');
        const logFile = folder + '/log';
        const child = await ManagedProcess.start({ name: 'orphan', command: 'sleep', args: ['60'], logFile });
        console.log(JSON.stringify({ pid: child.pid, folder }));
        setInterval(() => {}, 1000);`,
      resolveDir: import.meta.dirname,
    },
    ...({ bundle: true, write: false, platform: 'node', format: 'esm' } as const),
  });
  const script = bundle.outputFiles[0]?.text ?? '';
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(owner.stdout, 'data')) as [Buffer];
  const { pid, folder: orphanFolder } = JSON.parse(line.toString('utf8')) as { pid: number; folder: string };
  expect(processLives(pid)).toBe(true);
  expect(existsSync(orphanFolder)).toBe(true);
  owner.kill('SIGKILL');
  await until('the orphan to be gone', () => !processLives(pid));
  await until('the folder to be gone', () => !existsSync(orphanFolder));
});
