/**
 * Typed errors with stable codes.
 *
 * A `code` never changes once released: clients, alerts and tests match on it. `hint` tells the
 * caller what to do next. The RPC and REST layers carry `code`, `message` and `hint` across
 * process borders and rebuild the same error on the other side ({@link toErrorInfo},
 * {@link fromErrorInfo}).
 */
export type ErrorCode =
  /** The caller's fencing token no longer leads; whatever it tried did not happen. */
  | 'FENCED'
  /** This replica does not lead (or is suspended); ask again, the leader may be elsewhere. */
  | 'NOT_LEADER'
  /** A store or peer could not be reached; nothing was changed. Retry later. */
  | 'UNAVAILABLE'
  /** A request was sent and its answer was lost: it may or may not have taken effect. */
  | 'UNKNOWN_OUTCOME'
  /** A deadline passed before the work was done. */
  | 'TIMEOUT'
  /** The caller's input is wrong; the message says what, where, and what is accepted. */
  | 'INVALID_ARGUMENT'
  /** The named thing does not exist. */
  | 'NOT_FOUND'
  /** The named thing exists and may not be replaced, or is in the wrong state for the request. */
  | 'CONFLICT'
  /** The input is larger than a configured limit. */
  | 'TOO_LARGE'
  /** The user's program failed to load, threw, hung, or built a different graph than before. */
  | 'PROGRAM'
  /** Not enough slots within `slot.request.timeout`. */
  | 'NO_RESOURCES'
  /** Stored bytes do not match their recorded digest, or cannot be decoded. */
  | 'CORRUPT'
  /** A stored record was written by a newer version than this one understands. */
  | 'UNSUPPORTED_VERSION'
  /** The configuration is wrong; the message lists every problem. */
  | 'CONFIGURATION'
  /** The component is closing or closed. */
  | 'CLOSED'
  /** User code threw while processing records. */
  | 'USER_CODE'
  /** Anything else; a bug or an unexpected failure of the world. */
  | 'INTERNAL';

export interface ErrorDetails {
  /** What the caller should do next, as one sentence. */
  readonly hint?: string;
  readonly cause?: unknown;
}

export class MillraceError extends Error {
  override readonly name: string = 'MillraceError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.hint = details.hint;
  }
}

/** The caller's fencing token is not (or no longer) the leader's. */
export class FencedError extends MillraceError {
  override readonly name = 'FencedError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('FENCED', message, details);
  }
}

/** The answer to a mutation was lost. Read back by a unique id before deciding; never undo on doubt. */
export class UnknownOutcomeError extends MillraceError {
  override readonly name = 'UnknownOutcomeError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('UNKNOWN_OUTCOME', message, details);
  }
}

/** A store or peer is away and nothing was changed. */
export class UnavailableError extends MillraceError {
  override readonly name = 'UnavailableError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('UNAVAILABLE', message, details);
  }
}

export class NotFoundError extends MillraceError {
  override readonly name = 'NotFoundError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('NOT_FOUND', message, details);
  }
}

export class InvalidArgumentError extends MillraceError {
  override readonly name = 'InvalidArgumentError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('INVALID_ARGUMENT', message, details);
  }
}

export class NotLeaderError extends MillraceError {
  override readonly name = 'NotLeaderError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('NOT_LEADER', message, details);
  }
}

/** Stored bytes are damaged. Never skipped silently: the owner decides. */
export class CorruptError extends MillraceError {
  override readonly name = 'CorruptError';
  constructor(message: string, details: ErrorDetails = {}) {
    super('CORRUPT', message, details);
  }
}

/** The form in which an error crosses a process border or is stored: plain data. */
export interface ErrorInfo {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string | undefined;
  /** The original stack and the chain of causes, for people. */
  readonly stack?: string | undefined;
}

export function isMillraceError(error: unknown, code?: ErrorCode): error is MillraceError {
  return error instanceof MillraceError && (code === undefined || error.code === code);
}

/** Makes any thrown value an Error, keeping the original when it already is one. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

export function toErrorInfo(thrown: unknown): ErrorInfo {
  const error = asError(thrown);
  return {
    code: error instanceof MillraceError ? error.code : 'INTERNAL',
    message: error.message,
    hint: error instanceof MillraceError ? error.hint : undefined,
    stack: stackWithCauses(error),
  };
}

export function fromErrorInfo(info: ErrorInfo): MillraceError {
  const details: ErrorDetails = info.hint === undefined ? {} : { hint: info.hint };
  const error = build(info, details);
  if (info.stack !== undefined) error.stack = info.stack;
  return error;
}

function build(info: ErrorInfo, details: ErrorDetails): MillraceError {
  switch (info.code) {
    case 'FENCED':
      return new FencedError(info.message, details);
    case 'UNKNOWN_OUTCOME':
      return new UnknownOutcomeError(info.message, details);
    case 'UNAVAILABLE':
      return new UnavailableError(info.message, details);
    case 'NOT_FOUND':
      return new NotFoundError(info.message, details);
    case 'INVALID_ARGUMENT':
      return new InvalidArgumentError(info.message, details);
    case 'NOT_LEADER':
      return new NotLeaderError(info.message, details);
    case 'CORRUPT':
      return new CorruptError(info.message, details);
    default:
      return new MillraceError(info.code, info.message, details);
  }
}

function stackWithCauses(error: Error): string {
  const parts = [error.stack ?? String(error)];
  let cause = error.cause;
  // Bounded: a cause cycle must not hang the reporter.
  for (let depth = 0; depth < 8 && cause !== undefined; depth++) {
    const next = asError(cause);
    parts.push(`Caused by: ${next.stack ?? String(next)}`);
    cause = next.cause;
  }
  return parts.join('\n');
}
