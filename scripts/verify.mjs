/**
 * Everything that can be judged without running the product: types, format and lint, promises that
 * nobody awaits, import directions. All checks run, so that one run shows every problem.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = (name) => join(ROOT, 'node_modules', '.bin', name);

const typeChecks = ['tsconfig.json', 'src/web/app/tsconfig.json']
  .filter((project) => existsSync(join(ROOT, project)))
  .map((project) => [`types (${project})`, bin('tsc'), ['--noEmit', '--incremental', 'false', '-p', project]]);

const CHECKS = [
  ...typeChecks,
  ['format and lint (biome)', bin('biome'), ['check', '--error-on-warnings', '--max-diagnostics=50']],
  ['promises (oxlint)', bin('oxlint'), ['--type-aware', '--deny-warnings', '--disable-nested-config']],
  ['promise check finds a planted promise', process.execPath, ['scripts/prove-promise-lint.mjs']],
  ['lock file (all platforms)', process.execPath, ['scripts/complete-lock.mjs', '--check']],
  ['import directions', process.execPath, ['scripts/check-imports.mjs']],
];

/** @returns {Promise<{ code: number | null, output: string }>} */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

let failures = 0;
for (const [name, command, args] of CHECKS) {
  const { code, output } = await run(command, args);
  if (code === 0) {
    console.log(`ok    ${name}`);
    continue;
  }
  failures++;
  console.log(`FAIL  ${name}\n${output.trimEnd()}\n`);
}
console.log(
  failures === 0
    ? `verify: all ${CHECKS.length} checks passed`
    : `verify: ${failures} of ${CHECKS.length} checks failed`,
);
if (failures > 0) process.exitCode = 1;
