import type { LoadHook } from 'node:module';
import type { Mutant } from './mutants.ts';

let mutant: Mutant;

export function initialize(data: Mutant): void {
  mutant = data;
}

/** Fails when the text is not there, or more than once: a mutant that changes nothing proves nothing. */
export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context);
  if (!url.endsWith(`/dist/${mutant.file}`)) return loaded;
  let source = String(loaded.source);
  for (const { find, replace } of mutant.edits) {
    const parts = source.split(find);
    if (parts.length !== 2)
      throw new Error(`mutant ${mutant.name}: ${JSON.stringify(find)} is ${parts.length - 1} times in ${mutant.file}`);
    source = parts.join(replace);
  }
  return { ...loaded, source };
};
