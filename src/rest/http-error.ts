import { type ErrorCode, isMillraceError, type MillraceError } from '../kernel/errors.ts';

/** How long a client should wait before asking again during an election, in seconds. */
const RETRY_AFTER_S = 1;

const STATUS: Readonly<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  PROGRAM: 400,
  NOT_FOUND: 404,
  CONFLICT: 409,
  TOO_LARGE: 413,
  NOT_LEADER: 503,
  FENCED: 503,
  UNAVAILABLE: 503,
  UNKNOWN_OUTCOME: 503,
  CLOSED: 503,
  TIMEOUT: 504,
  NO_RESOURCES: 503,
  CORRUPT: 500,
  UNSUPPORTED_VERSION: 500,
  CONFIGURATION: 500,
  USER_CODE: 500,
  INTERNAL: 500,
};

export interface HttpError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Flink's form of an error, with a stable code and a hint beside it. */
  readonly body: { readonly errors: readonly string[]; readonly code: string; readonly hint?: string };
}

/** Makes of any failure what a client may see: never a stack, never the message of an unexpected error. */
export function toHttpError(error: unknown): HttpError {
  if (isMillraceError(error)) return ofMillrace(error);
  const status = statusOf(error);
  if (status !== undefined && status < 500) {
    const code = status === 413 ? 'TOO_LARGE' : status === 404 ? 'NOT_FOUND' : 'INVALID_ARGUMENT';
    return { status, headers: {}, body: { errors: [(error as Error).message], code } };
  }
  return {
    status: 500,
    headers: {},
    body: { errors: ['Internal server error; the reason is in the log of this master.'], code: 'INTERNAL' },
  };
}

function ofMillrace(error: MillraceError): HttpError {
  const status = STATUS[error.code];
  return {
    status,
    headers: status === 503 ? { 'retry-after': String(RETRY_AFTER_S) } : {},
    body: {
      errors: [error.hint === undefined ? error.message : `${asSentence(error.message)} ${error.hint}`],
      code: error.code,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    },
  };
}

function asSentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** The status that Fastify and its plugins put on their errors. */
function statusOf(error: unknown): number | undefined {
  const status = (error as { statusCode?: unknown } | undefined)?.statusCode;
  return typeof status === 'number' ? status : undefined;
}
