import { status } from '@grpc/grpc-js';
import { InvalidArgumentError, type MillraceError, NotFoundError, UnavailableError } from '../../src/kernel/errors.ts';

/** As gRPC reports failures: a code, and etcd's words or its own. */
export interface RpcFailure {
  readonly code: number;
  readonly details: string;
}

/**
 * What a failed call means for the caller:
 * - `refused`: etcd has decided; asking again gives the same.
 * - `unsent`: it surely had no effect, and another member may take it.
 * - `expired-token`: it surely had no effect; log in again and repeat it.
 * - `compacted`: the revision that was asked for is gone.
 * - `lost`: it may or may not have taken effect.
 */
export type Verdict =
  | { readonly kind: 'refused'; readonly error: MillraceError }
  | { readonly kind: 'unsent' | 'expired-token' | 'compacted' | 'lost' };

/**
 * Only answers that etcd gives before it proposes a request to its peers, or when it refuses to
 * apply one, count as "no effect". All else is in doubt (C5): a broken connection, a deadline,
 * `etcdserver: request timed out`, `etcdserver: leader changed`, `etcdserver: server stopped`.
 */
export function verdictOn(failure: RpcFailure): Verdict {
  const { code, details } = failure;
  const says = (words: string) => details.includes(words);
  if (says('invalid auth token') || says('revision of auth store is old')) return { kind: 'expired-token' };
  if (says('revision has been compacted')) return { kind: 'compacted' };
  if (says('requested lease not found')) return refused(new NotFoundError(details));
  if (isAboutAccess(code, details))
    return refused(
      new UnavailableError(`etcd refuses access: ${details}`, {
        hint: 'Check the user, the password and the role for etcd.',
      }),
    );
  // gRPC's own words for a call that found no connection to leave by.
  if (code === status.UNAVAILABLE && (says('No connection established') || says('Name resolution failed')))
    return { kind: 'unsent' };
  if (!details.startsWith('etcdserver:')) return { kind: 'lost' };
  switch (code) {
    case status.INVALID_ARGUMENT:
    case status.FAILED_PRECONDITION:
      return refused(new InvalidArgumentError(`etcd refuses the request: ${details}`));
    case status.RESOURCE_EXHAUSTED:
      if (says('too many requests')) return { kind: 'unsent' };
      return refused(
        new UnavailableError(`etcd has no room: ${details}`, {
          hint: 'Compact and defragment etcd, then disarm its alarm.',
        }),
      );
    case status.UNAVAILABLE:
      // Said by the interceptor that `hasleader` asks for, before anything is proposed.
      return says('no leader') || says('not supported for learner') ? { kind: 'unsent' } : { kind: 'lost' };
    default:
      return { kind: 'lost' };
  }
}

function isAboutAccess(code: number, details: string): boolean {
  return (
    code === status.PERMISSION_DENIED || code === status.UNAUTHENTICATED || /authentication|user name is/.test(details)
  );
}

function refused(error: MillraceError): Verdict {
  return { kind: 'refused', error };
}
