import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { packageRoot } from '../test-support/ensure-infra.ts';

/** The first `lines` lines of the King James Bible (see examples/data/README.md) in `files` files of whole lines. */
export function writeInputText(folder: string, { lines, files }: { readonly lines: number; readonly files: number }) {
  const text = gunzipSync(readFileSync(join(packageRoot(), 'examples/data/king-james-bible.txt.gz'))).toString('utf8');
  const chosen = text.split('\n', lines);
  mkdirSync(folder, { recursive: true });
  const perFile = Math.ceil(chosen.length / files);
  for (let i = 0; i < files; i++)
    writeFileSync(join(folder, `part-${i}.txt`), `${chosen.slice(i * perFile, (i + 1) * perFile).join('\n')}\n`);
}
