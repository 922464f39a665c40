import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isMillraceError } from '../../kernel/errors.ts';
import { describeConfiguration, loadConfiguration } from './load-config.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'millrace-config-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function load(options: { yaml?: string; args?: string[]; env?: Record<string, string> }) {
  const file = options.yaml === undefined ? undefined : join(dir, 'config.yaml');
  if (file !== undefined) writeFileSync(file, options.yaml ?? '');
  return loadConfiguration({ file, args: options.args ?? [], env: options.env ?? {} });
}

function problemsOf(options: Parameters<typeof load>[0]): string {
  try {
    load(options);
  } catch (error) {
    if (isMillraceError(error, 'CONFIGURATION')) return error.message;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

test('without any source every default holds', () => {
  const c = load({});
  expect(c.restPort).toBe(8081);
  expect(c.leaseTtlMs).toBe(2_000);
  expect(c.restMaxContentBytes).toBe(100 * 1024 * 1024);
  expect(c.restBindAddress).toBe('127.0.0.1');
  expect(c.checkpointIntervalMs).toBeUndefined();
});

test('an argument beats the environment, the environment beats the file, nested and flat keys are the same', () => {
  const yaml = 'rest:\n  port: 1001\nheartbeat.interval: 200 ms\ntaskmanager:\n  numberOfTaskSlots: 3\n';
  const c = load({
    yaml,
    env: { MILLRACE_CONF_REST_PORT: '1002', MILLRACE_CONF_HEARTBEAT_INTERVAL: '300 ms', PATH: '/bin' },
    args: ['rest.port=1003'],
  });
  expect(c.restPort).toBe(1003);
  expect(c.heartbeatIntervalMs).toBe(300);
  expect(c.slots).toBe(3);
});

test('every problem is listed at once, with its place and a suggestion', () => {
  const message = problemsOf({
    yaml: 'rest.prot: 8081\nheartbeat.interval: soon\n',
    env: { MILLRACE_CONF_NO_SUCH: 'x' },
    args: ['taskmanager.numberOfTaskSlots=0', 'high-availability.type=etcd', 'nonsense'],
  });
  expect(message).toContain('unknown key "rest.prot"');
  expect(message).toContain('did you mean "rest.port"?');
  expect(message).toContain('heartbeat.interval: "soon" is not a duration');
  expect(message).toContain('MILLRACE_CONF_NO_SUCH names no key');
  expect(message).toContain('taskmanager.numberOfTaskSlots: 0 is outside 1 to 1024');
  expect(message).toContain('high-availability.etcd.endpoints is missing');
  expect(message).toContain('-D nonsense is not of the form key=value');
});

test.each([
  [['heartbeat.interval=5 s', 'heartbeat.timeout=5 s'], 'heartbeat.interval'],
  [['high-availability.lease-ttl=2 s', 'high-availability.lease-margin=1 s'], 'at most a third'],
  [['high-availability.lease-ttl=500 ms'], 'at least 1 s'],
  [['s3.access-key=a'], 's3.access-key and s3.secret-key go together'],
  [['high-availability.storageDir=/plain/path'], 'begins neither'],
  [['high-availability.etcd.endpoints=http://a:1'], 'is embedded'],
])('contradictions are refused: %j', (args, expected) => {
  expect(problemsOf({ args })).toContain(expected);
});

test('a file that is missing or not YAML is named', () => {
  expect(() => loadConfiguration({ file: join(dir, 'none.yaml'), args: [], env: {} })).toThrow(/does not exist/);
  expect(problemsOf({ yaml: 'a: [1' })).toContain('is not valid YAML');
});

test('a secret never appears in a description or an error', () => {
  const args = ['s3.access-key=AKIA-visible', 's3.secret-key=very-secret'];
  const shown = JSON.stringify(describeConfiguration(load({ args })));
  expect(shown).not.toContain('very-secret');
  expect(shown).not.toContain('AKIA-visible');
  expect(shown).toContain('******');
  expect(problemsOf({ args: [...args, 'x=1'] })).not.toContain('very-secret');
});
