import { MillraceError, UnavailableError, UnknownOutcomeError } from '../../src/kernel/errors.ts';

export type CallKind = 'get' | 'list' | 'txn' | 'grantLease' | 'keepAlive' | 'revokeLease';

/**
 * The error for a call that was sent and not answered (C5). Reading, renewing, or granting a lease
 * that nobody then knows of changes nothing that a caller could ever be misled by, so these are
 * merely `UNAVAILABLE`.
 */
export function lostAnswer(kind: CallKind, message: string, cause?: unknown): MillraceError {
  const mutates = kind === 'txn' || kind === 'revokeLease';
  return mutates
    ? new UnknownOutcomeError(message, { hint: 'Read back by a unique id before deciding.', cause })
    : new UnavailableError(message, { hint: 'Try again later.', cause });
}

export function closedError(description: string): MillraceError {
  return new MillraceError('CLOSED', `${description} is closed`);
}
