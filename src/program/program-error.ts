import { asError, InvalidArgumentError, isMillraceError, MillraceError } from '../kernel/errors.ts';

/** What makes an error of user code readable: where it happened in the bundle, under the bundle's own name. */
export interface BundleNames {
  readonly bundleName: string;
  readonly moduleUrl: string;
}

/** An error may quote the program, which may be one long line. */
const MESSAGE_CHARACTERS_MAX = 1_000;

export type ProgramPhase = 'load' | 'run' | 'splits';

const DOING: Record<ProgramPhase, string> = {
  load: 'cannot be loaded',
  run: 'failed while it built the job',
  splits: 'failed while a source looked for its input',
};

/** An error of user code as `PROGRAM`, with message and line; errors that already say so stay as they are. */
export function programError(phase: ProgramPhase, thrown: unknown, names: BundleNames): MillraceError {
  if (isMillraceError(thrown, 'PROGRAM')) return thrown;
  const error = asError(thrown);
  const place = placeOf(error, names);
  const message = (relabel(error.message, names).split('\n', 1)[0] ?? '').slice(0, MESSAGE_CHARACTERS_MAX);
  // An author's wrong call of the API has a message made for him; other errors are better known by their class.
  const kind = error instanceof MillraceError || error.name === 'Error' ? '' : `${error.name}: `;
  const text = `${names.bundleName} ${DOING[phase]}: ${kind}${message}${place === undefined ? '' : ` (${place})`}`;
  const hint = hintFor(error, message);
  const wrapped = new MillraceError('PROGRAM', text, { cause: error, ...(hint === undefined ? {} : { hint }) });
  wrapped.stack = [`${wrapped.name}: ${text}`, ...framesOf(error, names)].join('\n');
  return wrapped;
}

/** The user's part of the stack: what called the program is ours and tells him nothing. */
function framesOf(error: Error, names: BundleNames): string[] {
  const frames = relabel(error.stack ?? '', names)
    .split('\n')
    .filter((line) => /^\s+at /.test(line));
  const last = frames.findLastIndex((line) => line.includes(`${names.bundleName}:`));
  return last === -1 ? frames : frames.slice(0, last + 1);
}

/** A SyntaxError of `import()` does not say where; see `locate-syntax-error.ts`. */
export function lacksPlace(phase: ProgramPhase, thrown: unknown, names: BundleNames): boolean {
  return phase === 'load' && thrown instanceof SyntaxError && placeOf(thrown, names) === undefined;
}

/** Replaces the temporary file's address by the name people know. */
export function relabel(text: string, { moduleUrl, bundleName }: BundleNames): string {
  const path = decodeURIComponent(new URL(moduleUrl).pathname);
  return (
    text
      .replace(/(bundle\.mjs)\?[a-z]+=\d+/g, '$1')
      .replaceAll(moduleUrl.replace(/\?.*$/, ''), bundleName)
      .replaceAll(path, bundleName)
      // A file beside it, which is imported but was not packed.
      .replaceAll(path.slice(0, path.lastIndexOf('/') + 1), './')
  );
}

function placeOf(error: Error, names: BundleNames): string | undefined {
  const stack = relabel(error.stack ?? '', names);
  const at = stack.indexOf(`${names.bundleName}:`);
  if (at === -1) return undefined;
  const [place] = /^:\d+(:\d+)?/.exec(stack.slice(at + names.bundleName.length)) ?? [];
  return place === undefined ? undefined : `${names.bundleName}${place}`;
}

function hintFor(error: Error, message: string): string | undefined {
  if (isMillraceError(error)) return error.hint;
  if ((error as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND') {
    return "Pack the program into one file with its dependencies; only 'millrace' and Node's own modules are there.";
  }
  if (/^(module|exports|require) is not defined/.test(message)) {
    return 'A job is an ES module: use import and export.';
  }
  return error instanceof InvalidArgumentError ? error.hint : undefined;
}
