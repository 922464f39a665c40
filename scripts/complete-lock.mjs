/**
 * Completes package-lock.json, or with `--check` fails when it is incomplete.
 *
 * npm leaves out of the lock what the registry in use does not offer: some mirrors carry the native
 * packages of their own platform only. On any other registry `npm ci` then refuses the lock. So every
 * optional package that a locked one names for another platform gets an entry here; npm skips it
 * wherever the platform differs. Run it after adding a dependency.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const LOCK = join(dirname(dirname(fileURLToPath(import.meta.url))), 'package-lock.json');
const OS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32'];
const CPU = ['arm64', 'arm', 'x64', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'wasm32'];

const lock = JSON.parse(readFileSync(LOCK, 'utf8'));
const added = [];
for (const [path, one] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(one.optionalDependencies ?? {})) {
    if (isLocked(path, name)) continue;
    lock.packages[`node_modules/${name}`] = entryFor(name, version, one.dev === true);
    added.push(`${name}@${version}`);
  }
}

if (added.length === 0) {
  console.log('package-lock.json is complete');
} else if (process.argv.includes('--check')) {
  console.error(`package-lock.json lacks ${added.join(', ')}; run: node scripts/complete-lock.mjs`);
  process.exitCode = 1;
} else {
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, 'en'));
  writeFileSync(LOCK, `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`);
  console.log(`package-lock.json: added ${added.length} packages of other platforms`);
}

/** Whether `name` is found from the package at `path`, the way Node looks for it. */
function isLocked(path, name) {
  for (let from = path; ; from = from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/')))) {
    if (lock.packages[`${from === '' ? '' : `${from}/`}node_modules/${name}`] !== undefined) return true;
    if (!from.includes('/node_modules/')) break;
  }
  return lock.packages[`node_modules/${name}`] !== undefined;
}

function entryFor(name, version, dev) {
  const words = name.split(/[/.-]/);
  const os = OS.filter((one) => words.includes(one));
  const cpu = CPU.filter((one) => words.includes(one)).slice(0, 1);
  if (os.length !== 1 || cpu.length !== 1 || !/^\d+\.\d+\.\d+/.test(version))
    throw new Error(`cannot tell the platform of ${name}@${version}; add it to package-lock.json by hand`);
  return { version, cpu, ...(dev ? { dev } : {}), optional: true, os };
}
