import { type Clock, sleep } from '../../src/kernel/clock.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Coordination, LeaseId } from '../coordination/coordination.ts';

const ATTEMPTS = 3;

/**
 * Gives a lease back so that others need not wait for its TTL. Never rejects: a lease that cannot be
 * revoked now is not renewed any more, and ends by itself.
 */
export async function revokeLease(
  deps: { readonly coordination: Coordination; readonly clock: Clock; readonly log: Logger },
  lease: LeaseId,
  retryMs: number,
): Promise<void> {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    try {
      await deps.coordination.revokeLease(lease);
      return;
    } catch (error) {
      deps.log.debug({ err: asError(error), lease, attempt }, 'lease not revoked');
      if (attempt < ATTEMPTS) await sleep(deps.clock, retryMs);
    }
  }
  deps.log.warn({ lease }, 'lease left to expire');
}
