import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { ENV_PREFIX, environmentName, loadConfiguration } from '../src/main/config/load-config.ts';
import { OPTIONS } from '../src/main/config/options.ts';
import { ensureInfra, packageRoot } from '../test-support/ensure-infra.ts';

const FILE = join(packageRoot(), 'docker-compose.ha.yml');
const SECRETS = { MINIO_ROOT_USER: 'millrace', MINIO_ROOT_PASSWORD: 'a-password-for-tests' };

interface Service {
  readonly image?: string;
  readonly build?: unknown;
  readonly user?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: unknown;
  readonly restart?: string;
  readonly volumes?: readonly (string | { readonly type: string; readonly source: string })[];
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
}

const compose = (...args: readonly string[]) =>
  promisify(execFile)('docker-compose', ['-f', FILE, ...args], {
    cwd: packageRoot(),
    // Nothing of the caller's shell: a variable that happens to be set there would hide one that is missing.
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...SECRETS },
  });

/** As docker-compose understands it: anchors, merges and variables resolved. */
let effective: Compose;

beforeAll(async () => {
  await ensureInfra(['compose']);
  effective = parse((await compose('config')).stdout, { merge: true }) as Compose;
});

const servicesThat = (test: (name: string, service: Service) => boolean) =>
  Object.entries(effective.services).filter(([name, service]) => test(name, service));
const ours = () => servicesThat((name) => /^(jobmanager|taskmanager)-/.test(name));

test('docker-compose accepts the file', async () => {
  await expect(compose('config', '-q')).resolves.toMatchObject({ stdout: '' });
});

test('without credentials for the object store it refuses and names what is missing', async () => {
  const bare = promisify(execFile)('docker-compose', ['-f', FILE, 'config', '-q'], {
    cwd: packageRoot(),
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
  });
  await expect(bare).rejects.toMatchObject({ stderr: expect.stringContaining('MINIO_ROOT_') });
});

test('three etcd members, MinIO, three masters and two workers', () => {
  const count = (pattern: RegExp) => servicesThat((name) => pattern.test(name)).length;
  expect([count(/^etcd-/), count(/^minio$/), count(/^jobmanager-/), count(/^taskmanager-/)]).toEqual([3, 1, 3, 2]);
});

test('every setting is a key of the product, and each process starts with a valid configuration', () => {
  const known = new Set(Object.values(OPTIONS).map(({ key }) => environmentName(key)));
  for (const [name, { environment = {} }] of ours()) {
    const settings = Object.keys(environment).filter((variable) => variable.startsWith(ENV_PREFIX));
    expect(settings.length, name).toBeGreaterThan(5);
    for (const setting of settings) expect(known, `${name}: ${setting}`).toContain(setting);
    const configuration = loadConfiguration({ file: undefined, args: [], env: environment });
    expect(configuration).toMatchObject({ haType: 'etcd', clusterId: 'compose' });
    expect(configuration.etcdEndpoints?.split(',')).toHaveLength(3);
  }
});

test('masters and workers are reached under their own names, and named differently', () => {
  const settingOf = (service: Service, key: string) => service.environment?.[environmentName(key)];
  for (const [name, service] of ours()) {
    const keys = name.startsWith('jobmanager') ? ['jobmanager.rpc.address', 'rest.address'] : ['taskmanager.host'];
    for (const key of keys) expect(settingOf(service, key), `${name}: ${key}`).toBe(name);
    const binds = name.startsWith('jobmanager')
      ? ['jobmanager.bind-host', 'rest.bind-address']
      : ['taskmanager.bind-host'];
    for (const key of binds) expect(settingOf(service, key), `${name}: ${key}`).toBe('0.0.0.0');
    expect(service.command).toEqual([name.split('-')[0]]);
  }
  const masters = ours().filter(([name]) => name.startsWith('jobmanager'));
  expect(new Set(masters.map(([, service]) => settingOf(service, 'jobmanager.id'))).size).toBe(3);
});

test('nobody is root, versions are pinned, what serves is checked and comes back, data has volumes', () => {
  for (const [name, service] of Object.entries(effective.services)) {
    if (service.image !== undefined) expect(service.image, name).toMatch(/:[^:/]*\d/);
    if (name === 'own-volumes') continue; // Gives the volumes to those who are not root, and ends.
    expect(service.user, name).toMatch(/^[1-9]/);
    if (name === 'create-bucket') continue;
    expect(service.healthcheck, name).toBeDefined();
    expect(service.restart, name).toBe('unless-stopped');
    expect(service.volumes?.length, name).toBeGreaterThan(0);
  }
  expect(Object.keys(effective.volumes).sort()).toEqual(['data', 'etcd-0', 'etcd-1', 'etcd-2', 'minio']);
  const dockerfile = readFileSync(join(packageRoot(), 'Dockerfile'), 'utf8');
  expect(dockerfile).toMatch(/^FROM \S+:\S*\d/m);
  expect(dockerfile).toMatch(/^USER (?!root|0\b)/m);
});

test('masters and workers start after the stores are ready, and the stores after their volumes', () => {
  for (const [name, { depends_on: needs = {} }] of ours())
    expect(needs, name).toMatchObject({
      'etcd-0': { condition: 'service_healthy' },
      'etcd-1': { condition: 'service_healthy' },
      'etcd-2': { condition: 'service_healthy' },
      'create-bucket': { condition: 'service_completed_successfully' },
    });
});
