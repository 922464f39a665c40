import { inspect } from 'node:util';
import { asError, isMillraceError, MillraceError } from '../kernel/errors.ts';

/** Where in the program something happened, as its author knows it. */
export interface OperatorSite {
  readonly name: string;
  /** From 0, in the order of the chain. */
  readonly position: number;
  readonly chainLength: number;
  readonly taskName: string;
}

const RENDERED_RECORD_MAX = 500;

/** The author's function threw while it worked on `record`. */
export function userCodeError(site: OperatorSite, thrown: unknown, record: unknown): MillraceError {
  const error = asError(thrown);
  // No mistake in a line of the program: what helps is in the error.
  if (isMillraceError(error, 'TOO_LARGE')) return operatorError(site, 'to keep its state', error);
  return new MillraceError(
    'USER_CODE',
    `${describeSite(site)} threw ${error.name}: ${error.message}; record: ${renderRecord(record)}`,
    { cause: error, hint: 'Look at the cause for the line of the program.' },
  );
}

/**
 * Something around records failed: opening, flushing, committing. A typed error keeps its code,
 * so that an unreachable store is not taken for a mistake of the program.
 */
export function operatorError(site: OperatorSite, doing: string, thrown: unknown): MillraceError {
  const error = asError(thrown);
  const code = error instanceof MillraceError ? error.code : 'USER_CODE';
  const hint = error instanceof MillraceError ? error.hint : undefined;
  return new MillraceError(code, `${describeSite(site)} failed ${doing}: ${error.message}`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** As {@link operatorError} for a typed error, as {@link userCodeError} for any other. */
export function recordError(site: OperatorSite, doing: string, thrown: unknown, record: unknown): MillraceError {
  return thrown instanceof MillraceError ? operatorError(site, doing, thrown) : userCodeError(site, thrown, record);
}

/** The author's function is async where it must not be. */
export function asyncFunctionError(site: OperatorSite, promise: Promise<unknown>, record: unknown): MillraceError {
  // Ours now, and refused: its own failure, if any, must not become an unhandled rejection.
  promise.catch(() => undefined);
  const error = new MillraceError(
    'INVALID_ARGUMENT',
    'the function returned a promise; functions of records must be synchronous',
  );
  return userCodeError(site, error, record);
}

function describeSite({ name, position, chainLength, taskName }: OperatorSite): string {
  return `operator "${name}" (${position + 1} of ${chainLength} in ${taskName})`;
}

/** Bounded, and runs no code of the record: neither getters nor custom inspection. */
export function renderRecord(record: unknown): string {
  let text: string;
  try {
    text = inspect(record, {
      depth: 3,
      maxArrayLength: 10,
      maxStringLength: 200,
      breakLength: Number.POSITIVE_INFINITY,
      customInspect: false,
      getters: false,
    });
  } catch (error) {
    // A proxy with a throwing trap; what matters is the error being described.
    text = `<cannot be shown: ${asError(error).message}>`;
  }
  return text.length <= RENDERED_RECORD_MAX ? text : `${text.slice(0, RENDERED_RECORD_MAX)}…`;
}
