import { stat } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import type { BuildFailure, BuildResult, Message } from 'esbuild';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';

const ENDINGS = ['.ts', '.mts', '.js', '.mjs'];

/**
 * Packs a job file and all it imports into one ES module. Only `millrace` and Node's own modules stay
 * imports: the former is the worker's own runtime.
 */
export async function packJob(path: string): Promise<Uint8Array> {
  const file = resolve(path);
  const ending = extname(file);
  if (!ENDINGS.includes(ending)) {
    throw new InvalidArgumentError(`${path} is no job file: its name must end in ${ENDINGS.join(', ')}`);
  }
  const found = await stat(file).catch((error: unknown) => {
    throw new InvalidArgumentError(`cannot read the job file ${path}`, { cause: error });
  });
  if (!found.isFile()) throw new InvalidArgumentError(`${path} is not a file`);
  return Buffer.from(await build(file, path), 'utf8');
}

async function build(file: string, shownAs: string): Promise<string> {
  // Loaded here, so that a server that never packs does not start a compiler.
  const esbuild = await import('esbuild');
  let result: BuildResult<{ write: false }>;
  try {
    result = await esbuild.build({
      entryPoints: [file],
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      external: ['millrace'],
      logLevel: 'silent',
      charset: 'utf8',
    });
  } catch (error) {
    const messages = (error as Partial<BuildFailure>).errors;
    if (messages === undefined) throw error;
    throw new MillraceError('PROGRAM', `${shownAs} cannot be packed: ${messages.map(describe).join('; ')}`, {
      cause: error,
    });
  }
  const [output] = result.outputFiles;
  if (output === undefined) throw new MillraceError('INTERNAL', `packing ${shownAs} gave no output`);
  return withRequire(output.text);
}

function describe({ text, location }: Message): string {
  return location === null ? text : `${location.file}:${location.line}:${location.column + 1}: ${text}`;
}

/** CommonJS dependencies call `require` for Node's own modules; an ES module has none unless it is made. */
function withRequire(text: string): string {
  if (!text.includes('Dynamic require of "') || /^(var|let|const) require\b/m.test(text)) return text;
  return `import { createRequire as createRequireOfBundle } from 'node:module';\nconst require = createRequireOfBundle(import.meta.url);\n${text}`;
}
