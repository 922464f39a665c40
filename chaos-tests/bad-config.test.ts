import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';

let dir: string;

beforeAll(() => {
  dir = makeTempFolder('bad-config');
});

afterAll(() => removeTempFolder(dir));

interface Ended {
  readonly code: number | null;
  readonly said: string;
}

/** Starts a role as a user would and waits for its end. */
async function start(role: string, args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const command = [join(packageRoot(), 'dist/src/main/cli.js'), role, ...args];
  const own = ['-D', `high-availability.embedded.dir=${dir}`, '-D', `io.tmp.dirs=${join(dir, 'tmp')}`];
  const child = spawn(process.execPath, [...command, ...own], {
    cwd: dir,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      said += chunk.toString('utf8');
    });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, said };
}

function expectExplained({ code, said }: Ended, ...words: readonly (string | RegExp)[]): void {
  for (const word of words) expect(said).toMatch(word);
  expect(said).not.toMatch(/\n\s+at /);
  expect(code, said).toBe(2);
}

test.each(['jobmanager', 'taskmanager'])('%s: every problem is listed at once, with its origin', async (role) => {
  const file = join(dir, 'config.yaml');
  writeFileSync(file, 'rest.prot: 8081\nheartbeat.interval: soon\n');
  const ended = await start(
    role,
    [
      ...['--config', file, '-D', 'rest.port=99999', '-D', 'high-availability.type=etcd', '-D', 'nonsense'],
      ...['-D', 'high-availability.lease-ttl=10 ms', '-D', 's3.access-key=only-half'],
    ],
    { MILLRACE_CONF_LOG_LEVLE: 'debug' },
  );
  expectExplained(
    ended,
    /unknown key "rest\.prot" \(.*config\.yaml\); did you mean "rest\.port"\?/,
    /heartbeat\.interval: "soon" is not a duration.*config\.yaml/,
    /rest\.port: 99999 is outside 0 to 65535 \(argument -D\)/,
    /-D nonsense is not of the form key=value/,
    'MILLRACE_CONF_LOG_LEVLE names no key',
    'high-availability.etcd.endpoints is missing',
    'high-availability.storageDir is missing',
    /high-availability\.lease-ttl \(10 ms\) must be at least 1 s/,
    's3.access-key and s3.secret-key go together',
    'docs/configuration.md lists every key.',
  );
  expect(ended.said).not.toContain('only-half');
});

test.each([
  [
    'a file that is not there',
    ['--config', '/nowhere/config.yaml'],
    /configuration file \/nowhere\/config\.yaml does not exist/,
  ],
  ['a master’s name', ['-D', 'jobmanager.id=a/b'], /jobmanager\.id "a\/b"/],
  ['a cluster’s name', ['-D', 'high-availability.cluster-id=../x'], /high-availability\.cluster-id "\.\.\/x"/],
  ['a grace that is too short', ['-D', 'gc.grace=1 s'], /gc\.grace.*at least/],
  ['an object store of no kind', ['-D', 'high-availability.storageDir=ftp://x'], /"ftp:\/\/x" begins neither with s3:/],
  [
    'certificates that are not there',
    [
      ...['-D', 'high-availability.type=etcd', '-D', 'high-availability.etcd.endpoints=https://127.0.0.1:1'],
      ...['-D', 'high-availability.storageDir=file:/tmp', '-D', 'high-availability.etcd.tls.ca-file=/nowhere/ca.pem'],
    ],
    /\/nowhere\/ca\.pem/,
  ],
])('%s', async (_what, args, says) => {
  expectExplained(await start('jobmanager', ['-D', 'rest.port=0', '-D', 'jobmanager.rpc.port=0', ...args]), says);
});

test('a file that is no YAML', async () => {
  const file = join(dir, 'broken.yaml');
  writeFileSync(file, 'rest: [1, 2\nport: {');
  expectExplained(await start('taskmanager', ['--config', file]), /broken\.yaml is not valid YAML/);
});

test('a port that is taken is named, and the process ends', async () => {
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  try {
    const { port } = holder.address() as AddressInfo;
    const rest = await start('jobmanager', ['-D', `rest.port=${port}`, '-D', 'jobmanager.rpc.port=0']);
    expectExplained(rest, new RegExp(`cannot listen for REST on 127\\.0\\.0\\.1:${port}: .*in use`), 'See rest.port');
    const rpc = await start('jobmanager', ['-D', 'rest.port=0', '-D', `jobmanager.rpc.port=${port}`]);
    expectExplained(rpc, new RegExp(`cannot listen for RPC on 127\\.0\\.0\\.1:${port}: .*in use`));
  } finally {
    holder.close();
  }
});
