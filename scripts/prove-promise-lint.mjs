/**
 * A linter that does not see types finds no floating promise and is content. This plants one of each
 * kind in a temporary folder and fails unless all are reported under the project's own configuration.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const PLANTED = {
  'no-floating-promises': 'work();',
  'no-misused-promises': 'if (work()) console.log("always");',
  'await-thenable': 'await 1;',
};

const folder = mkdtempSync(join(tmpdir(), 'millrace-promises-'));
try {
  for (const file of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) cpSync(join(ROOT, file), join(folder, file));
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'src'));
  const body = Object.values(PLANTED).join('\n  ');
  const text = `async function work(): Promise<number> {\n  return 1;\n}\nexport async function planted(): Promise<void> {\n  ${body}\n}\n`;
  writeFileSync(join(folder, 'src', 'planted.ts'), text);
  const result = spawnSync(join(ROOT, 'node_modules', '.bin', 'oxlint'), ['--type-aware'], {
    cwd: folder,
    encoding: 'utf8',
  });
  const output = `${result.stdout}${result.stderr}`;
  const missed = Object.keys(PLANTED).filter((rule) => !output.includes(rule));
  if (result.status === 0 || missed.length > 0) {
    console.error(`planted promises were not reported: ${missed.join(', ') || 'exit code 0'}\n${output}`);
    process.exitCode = 1;
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
