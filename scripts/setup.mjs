/**
 * Prepares what a command needs, and nothing else; quick when there is nothing to do.
 *
 *   node scripts/setup.mjs node deps build infra
 *
 *   node    the Node version that package.json asks for
 *   deps    `npm ci`, unless node_modules already holds what package-lock.json says
 *   build   sources to dist/, the dashboard to dist/web, unless dist/ was built from the same content
 *   infra   Debian packages with real servers for tests; or by name: etcd s3 browser compose tls net clocks
 *
 * Called by npm's pre-hooks. Has no dependencies: it must run before any is installed. Several may
 * run at once in one folder: one works, the others wait for it.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const inRoot = (...parts) => join(ROOT, ...parts);
const say = (line) => console.log(`set-up: ${line}`);

/** A problem that the user can solve; shown as one sentence, without a stack. */
class SetupError extends Error {}

const STEPS = {
  node: checkNode,
  deps: async () => {
    if (!dependenciesInstalled()) await withLock('deps', installDependencies);
  },
  build: async () => {
    if (!isBuilt()) await withLock('build', build);
  },
};

/** Command that must be on the PATH, or file that must be there (`*`: any folder) -> Debian package that brings it, by need. */
const INFRA = {
  etcd: { etcd: 'etcd-server', etcdctl: 'etcd-client' },
  s3: {
    radosgw: 'radosgw',
    'ceph-mon': 'ceph-mon',
    'ceph-osd': 'ceph-osd',
    ceph: 'ceph-common',
    monmaptool: 'ceph-common',
    curl: 'curl',
  },
  browser: { chromium: 'chromium' },
  compose: { 'docker-compose': 'docker-compose' },
  tls: { openssl: 'openssl' },
  net: { ip: 'iproute2', iptables: 'iptables', ps: 'procps' },
  clocks: { '/usr/lib/*/faketime/libfaketime.so.1': 'libfaketime' },
};
/** What needs these says so and is skipped: nobody who may not install them is kept from all the rest. */
const OPTIONAL = ['libfaketime'];
const TRY_AGAIN_MS = 24 * 3_600_000;

// --- node ---------------------------------------------------------------------------------------

function checkNode() {
  const wanted = /(\d+)\.(\d+)/.exec(readJson('package.json').engines.node);
  const has = process.versions.node.split('.').map(Number);
  const [major, minor] = [Number(wanted[1]), Number(wanted[2])];
  if (has[0] > major || (has[0] === major && has[1] >= minor)) return;
  throw new SetupError(
    `millrace needs Node.js ${major}.${minor} or later, and this is ${process.versions.node}; install a newer one from https://nodejs.org`,
  );
}

// --- deps ---------------------------------------------------------------------------------------

function installDependencies() {
  if (dependenciesInstalled()) return;
  say('installing dependencies (npm ci)');
  // The output matters only when it fails; npm is not quiet about packages whose scripts it does not run.
  const npm = process.env.npm_execpath;
  const [command, args] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  const result = spawnSync(command, [...args, 'ci', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    // Without this, `npm --omit=dev test` and NODE_ENV=production would leave the tools out.
    env: { ...process.env, NODE_ENV: 'development', npm_config_omit: '' },
  });
  if (result.status !== 0) {
    console.error(`${result.stdout ?? ''}${result.stderr ?? ''}`.trim());
    throw new SetupError(`npm ci failed${result.error ? ` (${result.error.message})` : ''}; its output is above`);
  }
}

/**
 * Compares the lock with npm's own record of what it installed, so that an `npm install` by hand
 * counts, and an interrupted one (npm writes the record last) does not.
 */
function dependenciesInstalled() {
  const record = inRoot('node_modules', '.package-lock.json');
  if (!existsSync(record)) return false;
  const wanted = readJson('package-lock.json').packages;
  const installed = readJson('node_modules/.package-lock.json').packages;
  // The record says what npm did, not what became of it: a folder may have been removed or half copied since.
  const { dependencies = {}, devDependencies = {} } = readJson('package.json');
  for (const name of Object.keys({ ...dependencies, ...devDependencies }))
    if (!existsSync(inRoot('node_modules', name, 'package.json'))) return false;
  return Object.entries(wanted).every(([path, one]) => {
    if (path === '' || one.link) return true;
    const has = installed[path];
    if (has === undefined) return one.optional === true || one.devOptional === true || one.peer === true;
    return has.version === one.version && has.integrity === one.integrity;
  });
}

// --- build --------------------------------------------------------------------------------------

function isBuilt() {
  const stamp = readStamp();
  return stamp.sources === sourcesDigest() && stamp.web === webDigest();
}

const sourcesDigest = () =>
  digestOf(['tsconfig.json', 'package-lock.json', ...readJson('tsconfig.json').include.map(topFolder)]);
const webDigest = () =>
  existsSync(inRoot('src/web/app/index.html'))
    ? digestOf(['package-lock.json', 'src/web/app', 'src/contracts'])
    : undefined;

function build() {
  const stamp = readStamp();
  const sources = sourcesDigest();
  if (stamp.sources !== sources) {
    say('compiling (dist/)');
    // Types are judged by `npm run verify`; here only code is emitted, which is much quicker.
    tool('tsc', ['-p', 'tsconfig.json', '--noCheck', '--incremental', 'false']);
    removeStale();
    writeStamp({ ...stamp, sources });
  }
  const web = webDigest();
  if (web !== undefined && stamp.web !== web) {
    say('building the dashboard (dist/web/)');
    tool('vite', ['build', 'src/web/app', '--outDir', inRoot('dist/web'), '--emptyOutDir', '--logLevel', 'warn']);
  }
  writeStamp({ sources, web });
}

const topFolder = (pattern) => pattern.split('/')[0];

/** Content, not times: a checkout touches times, and an edit within one tick would not. */
function digestOf(paths) {
  const hash = createHash('sha256');
  for (const path of paths.flatMap(filesUnder).sort()) {
    if (/\.test\.tsx?$/.test(path)) hash.update(path);
    else
      hash
        .update(path)
        .update('\0')
        .update(readFileSync(inRoot(path)))
        .update('\0');
  }
  return hash.digest('hex');
}

function filesUnder(path) {
  if (!existsSync(inRoot(path))) return [];
  if (/\.\w+$/.test(path)) return [path];
  return readdirSync(inRoot(path), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(ROOT.length + 1))
    .filter((file) => !file.includes('/node_modules/'));
}

/** Output of sources that are gone would still run: tests would pass for code that no longer exists. */
function removeStale() {
  for (const folder of new Set(readJson('tsconfig.json').include.map(topFolder))) {
    for (const file of filesUnder(`dist/${folder}`)) {
      const source = file.slice('dist/'.length).replace(/(\.d\.ts|\.js)(\.map)?$/, '');
      if (!existsSync(inRoot(`${source}.ts`)) && !existsSync(inRoot(`${source}.tsx`))) rmSync(inRoot(file));
    }
  }
}

function readStamp() {
  try {
    return readJson('dist/.stamp');
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return {};
    throw error;
  }
}

function writeStamp(stamp) {
  writeFileSync(inRoot('dist/.stamp.new'), JSON.stringify(stamp));
  renameSync(inRoot('dist/.stamp.new'), inRoot('dist/.stamp'));
}

function tool(name, args) {
  const result = spawnSync(inRoot('node_modules/.bin', name), args, { cwd: ROOT, encoding: 'utf8' });
  if (result.status === 0) return;
  console.error(`${result.stdout ?? ''}${result.stderr ?? ''}`.trim());
  throw new SetupError(`${name} failed${result.error ? ` (${result.error.message})` : ''}; its output is above`);
}

// --- infra --------------------------------------------------------------------------------------

/** Sees to it that the servers of the given needs (all by default) are installed. */
export async function ensureInfra(needs = Object.keys(INFRA)) {
  if (missingPackages(needs).length === 0) return;
  await withLock('infra', () => {
    const missing = missingPackages(needs); // Another process may have installed them meanwhile.
    const required = missing.filter((name) => !OPTIONAL.includes(name));
    if (required.length > 0) installPackages(required);
    for (const name of missing) if (OPTIONAL.includes(name)) tryToInstall(name);
  });
}

function missingPackages(needs) {
  const missing = needs.flatMap((need) => Object.entries(INFRA[need]).filter(([what]) => !isThere(what)));
  const packages = [...new Set(missing.map(([, debianPackage]) => debianPackage))];
  return packages.filter((name) => !OPTIONAL.includes(name) || mayTry(name));
}

/** Not each time: without a network a vain try takes longer than all the rest. */
function mayTry(name) {
  if (!onPath('apt-get') || process.getuid?.() !== 0) return false;
  const failed = statSync(triedFile(name), { throwIfNoEntry: false });
  return failed === undefined || Date.now() - failed.mtimeMs > TRY_AGAIN_MS;
}

function tryToInstall(name) {
  try {
    installPackages([name]);
    rmSync(triedFile(name), { force: true });
  } catch (error) {
    writeFileSync(triedFile(name), '');
    say(`${name} is not there, and what needs it will be skipped: ${error.message}`);
  }
}

const triedFile = (name) => inRoot('.millrace', `${name}.not-installed`);

function isThere(what) {
  if (!what.startsWith('/')) return onPath(what);
  const [before, after] = what.split('/*/');
  if (after === undefined) return existsSync(what);
  return existsSync(before) && readdirSync(before).some((folder) => existsSync(join(before, folder, after)));
}

function onPath(command) {
  // Daemons live in sbin, which is not on every user's PATH.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false; // Not in this folder.
    }
  });
}

function installPackages(packages) {
  const byHand = `apt-get install ${packages.join(' ')}`;
  if (!onPath('apt-get'))
    throw new SetupError(`this needs the programs of the Debian packages ${packages.join(', ')}; install them first`);
  if (process.getuid?.() !== 0) throw new SetupError(`this needs some Debian packages; as root, run: ${byHand}`);
  say(`installing Debian packages: ${packages.join(' ')}`);
  // Ctrl-C goes to apt-get too, which ends; we must outlive it to take our policy file away again.
  const outlive = () => {};
  process.on('SIGINT', outlive);
  const takeAway = forbidServiceStarts();
  try {
    aptGet(['update', '-qq']);
    aptGet(['install', '-y', '-qq', '--no-install-recommends', ...packages]);
  } catch (error) {
    throw new SetupError(`${error.message}; or try by hand: ${byHand}`);
  } finally {
    takeAway();
    process.off('SIGINT', outlive);
  }
}

/** Debian starts a server when its package is installed; `policy-rc.d` is its official way to be told not to. */
function forbidServiceStarts() {
  const policy = '/usr/sbin/policy-rc.d';
  if (existsSync(policy)) return () => {};
  writeFileSync(policy, '#!/bin/sh\nexit 101\n');
  chmodSync(policy, 0o755);
  return () => rmSync(policy, { force: true });
}

function aptGet(args) {
  const result = spawnSync('apt-get', args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (result.status === 0) return;
  console.error(`${result.stdout ?? ''}${result.stderr ?? ''}`.trim());
  throw new Error(`apt-get ${args[0]} failed${result.error ? ` (${result.error.message})` : ''}`);
}

// --- one at a time ------------------------------------------------------------------------------

/**
 * Runs `work` while no other set-up in this folder does the same. The lock is `flock`'s where that
 * exists, held by a child that lives as long as our end of its pipe: whatever kills us frees it,
 * and there is no stale lock to judge.
 */
async function withLock(name, work) {
  mkdirSync(inRoot('.millrace'), { recursive: true });
  mkdirSync(inRoot('dist'), { recursive: true });
  const release = await acquire(inRoot('.millrace', `${name}.lock`), name);
  try {
    return await work();
  } finally {
    release();
  }
}

async function acquire(file, name) {
  if (!onPath('flock')) return acquireByFile(file);
  const holder = spawn('flock', ['-x', file, 'sh', '-c', 'echo held; cat >/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true, // Ctrl-C must not free the lock before we have stopped.
  });
  const patience = setTimeout(() => say(`waiting for another set-up (${name})`), 2_000);
  await new Promise((resolve, reject) => {
    holder.once('error', reject);
    holder.once('exit', (code) => reject(new SetupError(`cannot lock ${file} (flock ended with ${code})`)));
    holder.stdout.once('data', resolve);
  }).finally(() => clearTimeout(patience));
  holder.removeAllListeners('exit');
  return () => holder.stdin.end();
}

/** Without `flock` (macOS): a file with our pid; one whose process is gone is taken over. */
async function acquireByFile(file) {
  for (;;) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx' });
      return () => rmSync(file, { force: true });
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const holder = Number(existsSync(file) ? readFileSync(file, 'utf8') : 0);
    if (holder > 0 && !processExists(holder)) rmSync(file, { force: true });
    await sleep(200);
  }
}

function processExists(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code !== 'ESRCH';
  }
}

// ------------------------------------------------------------------------------------------------

function readJson(path) {
  return JSON.parse(readFileSync(inRoot(path), 'utf8'));
}

async function main(needs) {
  for (const need of needs) {
    if (need in STEPS) await STEPS[need]();
    else if (need === 'infra') await ensureInfra();
    else if (need in INFRA) await ensureInfra([need]);
    else
      throw new SetupError(
        `unknown need "${need}"; known: ${[...Object.keys(STEPS), 'infra', ...Object.keys(INFRA)].join(' ')}`,
      );
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    console.error(error instanceof SetupError ? `set-up: ${error.message}` : error);
    process.exitCode = 1;
  }
}
