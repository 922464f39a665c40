/**
 * Checks that every import of the project goes in a direction that `import-rules.mjs` allows.
 *
 * Written over the parser that Vite brings because dependency-cruiser sees no TypeScript at all
 * next to TypeScript 7, and with its swc parser fails on TSX, misses `import('…')` types and worker
 * URLs, and cannot tell a type-only import from a real one.
 *
 * A check that sees nothing passes too. So this one fails when it saw too few files or imports, and
 * on every run it first proves itself: violations planted in a temporary tree must all be reported.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'vite';
import { PORT_FILE, ROOMS, TEST_FILE, TEST_ROOM } from './import-rules.mjs';

/** Fewer than the skeleton had when this check was written: something is wrong with the check itself. */
const SANE_FILES = 15;
const ROOM_NAMES = Object.keys(ROOMS).sort((a, b) => b.length - a.length);
const TOP_FOLDERS = [...new Set(ROOM_NAMES.map((room) => room.split('/')[0]))];

/** @typedef {{ specifier: string, line: number, typeOnly: boolean }} Import */
/** @typedef {{ file: string, line: number, reason: string }} Violation */

/** All imports of one source text, in every form that reaches another module. @returns {Import[]} */
export function importsOf(file, text) {
  const { program, errors } = parseSync(file, text);
  if (errors.length > 0) throw new Error(`${file} cannot be parsed: ${errors[0].message}`);
  const found = [];
  const add = (node, source, typeOnly) => {
    if (typeof source?.value !== 'string') return;
    found.push({ specifier: source.value, line: text.slice(0, node.start).split('\n').length, typeOnly });
  };
  const visit = (node) => {
    switch (node.type) {
      case 'ImportDeclaration':
        add(node, node.source, node.importKind === 'type' || allTypes(node.specifiers, 'importKind'));
        break;
      case 'ExportNamedDeclaration':
        add(node, node.source, node.exportKind === 'type' || allTypes(node.specifiers, 'exportKind'));
        break;
      case 'ExportAllDeclaration':
        add(node, node.source, node.exportKind === 'type');
        break;
      case 'ImportExpression':
        add(node, node.source, false);
        break;
      case 'TSImportType':
        add(node, node.source, true);
        break;
      case 'CallExpression':
        if (node.callee.name === 'require') add(node, node.arguments[0], false);
        break;
      case 'NewExpression':
        // new URL('./worker.ts', import.meta.url): how worker threads are named. Other files and folders may be too.
        if (node.callee.name === 'URL' && node.arguments.length === 2 && isScript(node.arguments[0]?.value))
          add(node, node.arguments[0], false);
        break;
    }
    for (const value of Object.values(node)) {
      if (Array.isArray(value)) for (const item of value) isNode(item) && visit(item);
      else if (isNode(value)) visit(value);
    }
  };
  visit(program);
  return found;
}

const isNode = (value) => typeof value === 'object' && value !== null && typeof value.type === 'string';
const isRelative = (specifier) => typeof specifier === 'string' && /^\.{1,2}\//.test(specifier);
const isScript = (specifier) => isRelative(specifier) && /\.[cm]?[jt]sx?$/.test(specifier);
const allTypes = (specifiers, kind) => specifiers.length > 0 && specifiers.every((one) => one[kind] === 'type');

/** The room that a path (relative to the root, with `/`) belongs to. */
export function roomOf(path) {
  return ROOM_NAMES.find((room) => path.startsWith(`${room}/`));
}

/** Why this import is not allowed, or undefined when it is. @returns {string | undefined} */
function objection(file, one, packages) {
  const room = roomOf(file);
  if (room === undefined) return `belongs to no room; add its folder to scripts/import-rules.mjs`;
  const isTest = TEST_FILE.test(file);
  const rule = isTest && room !== 'chaos-tests' ? TEST_ROOM : ROOMS[room];
  return isRelative(one.specifier)
    ? localObjection({ file, room, rule }, one)
    : packageObjection({ room, rule: isTest ? TEST_ROOM : rule }, one, packages);
}

function localObjection({ file, room, rule }, one) {
  const target = posix.normalize(posix.join(posix.dirname(file), one.specifier));
  const targetRoom = roomOf(target);
  if (target === 'package.json' || targetRoom === room) return undefined;
  if (targetRoom === undefined) return `imports ${target}, which belongs to no room`;
  const listed = (names = []) =>
    names.some((name) => (name.endsWith('/') ? target.startsWith(name) : name === targetRoom));
  if (listed(rule.imports)) return undefined;
  if (listed(rule.typesOnly)) return one.typeOnly ? undefined : `may import only types of ${targetRoom} (${target})`;
  if (rule.ports && PORT_FILE.test(target))
    return one.typeOnly ? undefined : `may import the port ${target} only as a type`;
  return `${room} must not import ${targetRoom} (${target})`;
}

function packageObjection({ room, rule }, one, packages) {
  if (isBuiltin(one.specifier)) return undefined;
  const name = one.specifier
    .split('/')
    .slice(0, one.specifier.startsWith('@') ? 2 : 1)
    .join('/');
  if (name === packages.self)
    return room.startsWith('src/') && !rule.dev ? `${room} must not import the package itself` : undefined;
  if (rule.packages !== undefined && !rule.packages.includes(name))
    return `${room} must not import the package ${name}`;
  if (packages.dependencies.has(name) || (rule.dev && packages.devDependencies.has(name))) return undefined;
  return `imports ${name}, which is not in the ${rule.dev ? 'dependencies' : '"dependencies"'} of package.json`;
}

/** @returns {{ files: number, imports: number, violations: Violation[] }} */
export function checkImports(root, packages) {
  const violations = [];
  let imports = 0;
  const files = TOP_FOLDERS.flatMap((folder) => sourcesUnder(root, folder));
  for (const file of files) {
    for (const one of importsOf(file, readFileSync(join(root, file), 'utf8'))) {
      imports++;
      const reason = objection(file, one, packages);
      if (reason !== undefined) violations.push({ file, line: one.line, reason });
    }
  }
  return { files: files.length, imports, violations };
}

function sourcesUnder(root, folder) {
  let entries;
  try {
    entries = readdirSync(join(root, folder), { withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOENT') return []; // A room of the table that does not exist yet.
    throw error;
  }
  return entries.flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : sourcesUnder(root, path);
    return /\.tsx?$/.test(entry.name) ? [path] : [];
  });
}

/** Each must be reported, in every form an import can take. The last ones are allowed and must not be. */
const PLANTED = [
  ['src/kernel/planted.ts', `import { a } from '../contracts/a.ts';`],
  ['src/contracts/planted.ts', `import type { A } from '../graph/a.ts';`],
  ['src/graph/planted.ts', `export { a } from '../api/a.ts';`],
  ['src/api/planted.ts', `export * from '../subtask/a.ts';`],
  ['src/state/planted.ts', `export const a = await import('../exchange/a.ts');`],
  ['src/exchange/planted.ts', `export type A = import('../state/a.ts').A;`],
  ['src/subtask/planted.ts', `new Worker(new URL('../taskmanager/a.ts', import.meta.url));`],
  ['src/jobmaster/planted.ts', `import '../dispatcher/a.ts';`],
  ['src/dispatcher/planted.ts', `import { a } from '../program/a.ts';`],
  ['src/dispatcher/store.ts', `import { a } from '../../ha/stores/a.ts';`],
  ['src/rest/planted.ts', `import { a } from 'no-such-package';`],
  ['src/rest/dev.ts', `import { a } from 'dev-only';`],
  ['src/kernel/package.ts', `import { a } from 'known';`],
  ['src/web/app/planted.tsx', `import { a } from '../../contracts/a.ts'; export const B = () => <i>{a}</i>;`],
  ['src/web/app/planted-2.tsx', `import type { A } from '../../kernel/a.ts'; export const B = () => <i />;`],
  ['ha/stores/planted.ts', `import type { A } from '../../src/dispatcher/dispatcher.ts';`],
  ['ha/stores/planted-2.ts', `import { a } from '../../src/dispatcher/ports.ts';`],
  ['src/main/planted.ts', `import { a } from '../../chaos-tests/a.ts';`],
  ['src/main/planted.test.ts', `import { a } from '../../chaos-tests/a.ts';`],
  ['src/nowhere/planted.ts', `import { a } from '../kernel/a.ts';`],
];
const ALLOWED = [
  ['src/main/allowed.ts', `import { a } from '../kernel/a.ts'; import { b } from '../../ha/stores/b.ts';`],
  ['src/web/app/allowed.tsx', `import type { A } from '../../contracts/a.ts'; import 'dev-only';`],
  ['ha/stores/allowed.ts', `import type { A } from '../../src/dispatcher/ports.ts'; import 'node:fs'; import 'known';`],
  ['src/kernel/allowed.test.ts', `import { a } from '../../test-support/a.ts'; import { test } from 'dev-only';`],
];

/** Throws unless exactly the planted violations are found in a temporary tree. */
export function proveCheck() {
  const root = mkdtempSync(join(tmpdir(), 'millrace-imports-'));
  try {
    for (const [file, text] of [...PLANTED, ...ALLOWED]) {
      mkdirSync(join(root, dirname(file)), { recursive: true });
      writeFileSync(join(root, file), `${text}\n`);
    }
    const packages = { self: 'self', dependencies: new Set(['known']), devDependencies: new Set(['dev-only']) };
    const reported = new Set(checkImports(root, packages).violations.map((violation) => violation.file));
    const missed = PLANTED.filter(([file]) => !reported.has(file));
    const wronged = ALLOWED.filter(([file]) => reported.has(file));
    if (missed.length + wronged.length > 0)
      throw new Error(
        `the import check does not work: missed [${missed.join(' ')}], wrongly reported [${wronged.join(' ')}]`,
      );
    return PLANTED.length;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

function main() {
  const root = dirname(dirname(fileURLToPath(import.meta.url)));
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const planted = proveCheck();
  const { files, imports, violations } = checkImports(root, {
    self: manifest.name,
    dependencies: new Set(Object.keys(manifest.dependencies)),
    devDependencies: new Set(Object.keys(manifest.devDependencies)),
  });
  for (const { file, line, reason } of violations) console.error(`${file}:${line}: ${reason}`);
  if (files < SANE_FILES || imports < files)
    throw new Error(`the import check saw only ${files} files with ${imports} imports: it does not see the project`);
  console.log(
    `${imports} imports in ${files} files, ${violations.length} in a forbidden direction (${planted} of ${planted} planted ones found)`,
  );
  if (violations.length > 0) process.exitCode = 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
