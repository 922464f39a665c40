import { type ServiceError, status } from '@grpc/grpc-js';
import { MillraceError, UnavailableError, UnknownOutcomeError } from '../kernel/errors.ts';

/**
 * What a failed call means for the caller, as a pure function.
 *
 * The question that matters is whether the callee may have acted:
 *   - The request never left this process (no connection): `UNAVAILABLE`, nothing was changed. When the
 *     connection was refused the cause carries `ECONNREFUSED`.
 *   - It may have left and the answer is missing, and the method changes something: `UNKNOWN_OUTCOME`,
 *     whether the deadline passed or the connection broke.
 *   - The same for a method that changes nothing: `TIMEOUT` or `UNAVAILABLE`.
 */
export type CallFailure =
  | { readonly kind: 'deadline'; readonly deadlineMs: number; readonly everConnected: boolean }
  | { readonly kind: 'grpc'; readonly error: Pick<ServiceError, 'code' | 'details'> };

export interface CallDescription {
  /** `gateway.method` */
  readonly method: string;
  readonly address: string;
  readonly readOnly: boolean;
}

export function outcomeOf(failure: CallFailure, call: CallDescription): MillraceError {
  const what = `${call.method} at ${call.address}`;
  if (failure.kind === 'deadline') {
    const message = `${what} was not answered within ${failure.deadlineMs} ms`;
    if (!failure.everConnected) return new UnavailableError(`${message}: no connection`);
    return call.readOnly ? new MillraceError('TIMEOUT', message) : new UnknownOutcomeError(message);
  }
  const { code, details } = failure.error;
  switch (code) {
    case status.UNAVAILABLE:
      if (neverLeft(details)) return new UnavailableError(`${what}: ${details}`, { cause: systemError(details) });
      return lostAnswer(`${what}: the connection broke (${details})`, call);
    case status.UNIMPLEMENTED:
      return new UnavailableError(`${what} is not offered there`, {
        hint: 'The role has not started there yet, or runs another version.',
      });
    case status.RESOURCE_EXHAUSTED:
      return new MillraceError('TOO_LARGE', `${what}: ${details}`, { hint: 'Raise the payload limit on both sides.' });
    default:
      return lostAnswer(`${what} failed with gRPC status ${code}: ${details}`, call);
  }
}

function lostAnswer(message: string, call: CallDescription): MillraceError {
  return call.readOnly ? new UnavailableError(message) : new UnknownOutcomeError(message);
}

/** How gRPC says that it had no connection to write the request to: its pick failed, or we gave up a connect that hung. */
function neverLeft(details: string): boolean {
  return /No connection established|Name resolution failed|ECONNREFUSED|Channel closed before call started/.test(
    details,
  );
}

/** gRPC gives text only; the system's code in it is restored as Node's errors carry it. */
function systemError(details: string): Error {
  const code = /\b(E[A-Z]{4,})\b/.exec(details)?.[1];
  return Object.assign(new Error(details), code === undefined ? {} : { code });
}
