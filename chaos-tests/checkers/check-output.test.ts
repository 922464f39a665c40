import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkOutput } from '../../src/main/demo/check-output.ts';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';

let dir: string;

beforeEach(() => {
  dir = makeTempFolder('check-output');
  mkdirSync(join(dir, 'input'));
  mkdirSync(join(dir, 'output'));
  writeFileSync(join(dir, 'input', 'a.txt'), 'To be, or not\nto be.\n');
});

afterEach(() => removeTempFolder(dir));

function judge(files: Readonly<Record<string, string>>) {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, 'output', name), text);
  return checkOutput(join(dir, 'input'), join(dir, 'output'));
}

test('every word once for each time it occurs, over any files and in any order', () => {
  const verdict = judge({ 'part-0': 'to 2\nbe 1\nor 1\n', 'part-1': 'not 1\nbe 2\nto 1\n' });
  expect(verdict).toEqual({ pass: true, words: 6, distinct: 4, committedLines: 6, problems: [] });
});

test.each([
  ['a lost line', { 'part-0': 'to 2\nbe 1\nor 1\nnot 1\nbe 2\n' }, /"to" occurs 2 times, the output holds 1 lines/],
  ['a repeated file', { 'part-0': 'to 1\nto 2\nbe 1\nor 1\nnot 1\nbe 2\n', 'part-1': 'to 2\n' }, /"to" .* 3 lines/],
  ['right totals of wrong counts', { 'part-0': 'to 1\nto 1\nbe 1\nor 1\nnot 1\nbe 2\n' }, /"to" occurs 2 times/],
  ['a word from nowhere', { 'part-0': 'to 1\nto 2\nbe 1\nor 1\nnot 1\nbe 2\nking 1\n' }, /"king" is not in the input/],
  ['half a line', { 'part-0': 'to 1\nto 2\nbe 1\nor 1\nnot 1\nbe' }, /"be" occurs 2 times/],
])('%s is found', (_what, files, says) => {
  const verdict = judge(files);
  expect(verdict.pass).toBe(false);
  expect(verdict.problems.join('\n')).toMatch(says);
});

test('what is not committed does not count', () => {
  const all = 'to 1\nto 2\nbe 1\nor 1\nnot 1\nbe 2\n';
  expect(judge({ 'part-0': all, '.part-1.inprogress': 'to 3\n', _temporary: 'to 3\n' }).pass).toBe(true);
});
