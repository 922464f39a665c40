import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { loadConfiguration } from './load-config.ts';
import { optionsMarkdown } from './options-markdown.ts';

const root = new URL('../../../', import.meta.url);

test('docs/configuration.md lists the options as they are', () => {
  expect(readFileSync(new URL('docs/configuration.md', root), 'utf8')).toBe(optionsMarkdown());
});

test('the configuration file that ships is valid', () => {
  const file = new URL('config/config.yaml', root).pathname;
  expect(loadConfiguration({ file, args: [], env: {} }).haType).toBe('embedded');
});
