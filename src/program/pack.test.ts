import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { packJob } from './pack.ts';

const root = mkdtempSync(join(tmpdir(), 'millrace-pack-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(root, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

test('a TypeScript job with its imports becomes one ES module that still imports millrace', async () => {
  file('words.ts', 'export const split = (line: string): string[] => line.split(" ");');
  const job = file(
    'job.ts',
    `import { StreamExecutionEnvironment } from 'millrace';
     import { split } from './words.ts';
     export function main(env: StreamExecutionEnvironment) { return split('a b'); }
     export const env = () => StreamExecutionEnvironment;`,
  );
  const text = Buffer.from(await packJob(job)).toString('utf8');
  expect(text).toMatch(/from "millrace"/);
  expect(text).not.toMatch(/from "\.\/words/);
  expect(text).not.toMatch(/: string/);
});

test('a CommonJS dependency that requires a module of Node works in the bundle', async () => {
  file('node_modules/old/index.js', 'const os = require("os"); exports.eol = os.EOL;');
  file('node_modules/old/package.json', '{"name":"old","main":"index.js"}');
  const job = file('uses-old.mjs', 'import { eol } from "old"; export const main = () => eol;');
  const packed = file('packed.mjs', Buffer.from(await packJob(job)).toString('utf8'));
  const { main } = (await import(pathToFileURL(packed).href)) as { main: () => string };
  expect(main()).toBe('\n');
});

test('what cannot be packed is refused with file and line', async () => {
  const bad = file('bad.ts', 'export const a = 1;\nexport const b = ;\n');
  await expect(packJob(bad)).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringMatching(/bad\.ts:2:18: /),
  });
  const missing = file('missing.ts', 'import "./nowhere.ts";');
  await expect(packJob(missing)).rejects.toMatchObject({
    code: 'PROGRAM',
    message: expect.stringContaining('nowhere'),
  });
  await expect(packJob(join(root, 'absent.ts'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(packJob(file('job.jar', 'PK'))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(packJob(root)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});
