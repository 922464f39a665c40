import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { packageRoot } from '../../../test-support/ensure-infra.ts';

/** Unpacks the King James Bible (see examples/data/README.md) into `files` files of whole lines. */
export function unpackText(folder: string, files: number): { readonly bytes: number; readonly lines: number } {
  const text = gunzipSync(readFileSync(join(packageRoot(), 'examples/data/king-james-bible.txt.gz'))).toString('utf8');
  const lines = text.trimEnd().split('\n');
  mkdirSync(folder, { recursive: true });
  const perFile = Math.ceil(lines.length / files);
  for (let i = 0; i < files; i++) {
    const part = lines.slice(i * perFile, (i + 1) * perFile);
    writeFileSync(join(folder, `part-${String(i).padStart(2, '0')}.txt`), `${part.join('\n')}\n`);
  }
  return { bytes: Buffer.byteLength(text), lines: lines.length };
}
