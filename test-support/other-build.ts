import { cpSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from './ensure-infra.ts';

/** One textual change, in every compiled file that it fits. */
export interface BuildChange {
  /** A folder or file of the package, e.g. `dist/ha`. */
  readonly where: string;
  readonly from: RegExp;
  readonly to: string;
}

/**
 * A build of the package that is this one but for some text: what a later version would write. Gives its root folder.
 * A change that fits nowhere is an error: the code has moved on, and the test that asked for it would prove nothing.
 */
export function makeBuild(folder: string, changes: readonly BuildChange[]): string {
  const from = packageRoot();
  const hasNothingOf = (path: string) => !path.endsWith('.map') && !path.endsWith('.d.ts');
  for (const part of ['dist/src', 'dist/ha'])
    cpSync(join(from, part), join(folder, part), { recursive: true, filter: hasNothingOf });
  cpSync(join(from, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(from, 'node_modules'), join(folder, 'node_modules'));
  symlinkSync(join(from, 'dist/web'), join(folder, 'dist/web'));
  for (const { where, from: pattern, to } of changes) {
    const changed = filesOf(join(folder, where)).filter((file) => {
      const text = readFileSync(file, 'utf8');
      const next = text.replace(pattern, to);
      if (next !== text) writeFileSync(file, next);
      return next !== text;
    });
    if (changed.length === 0) throw new Error(`${pattern} fits nowhere in ${where}`);
  }
  return folder;
}

function filesOf(path: string): string[] {
  if (path.endsWith('.js')) return [path];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.js'))
    .map((entry) => join(entry.parentPath, entry.name));
}
