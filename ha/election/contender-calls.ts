import type { LeaderContender, Leadership } from '../../src/contracts/leadership.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import type { Logger } from '../../src/kernel/log.ts';

export type ContenderCall =
  | { readonly kind: 'granted'; readonly leadership: Leadership }
  | { readonly kind: 'suspended' | 'resumed' | 'revoked'; readonly token: FencingToken; readonly reason: string };

/**
 * Tells the contender, one thing after the other: a contender that abdicates while it is being told
 * of its election hears of the revocation afterwards, not in between.
 */
export class ContenderCalls {
  private readonly queue: ContenderCall[] = [];
  private calling = false;

  constructor(
    private readonly contender: LeaderContender,
    private readonly log: Logger,
  ) {}

  announce(call: ContenderCall): void {
    this.queue.push(call);
    if (this.calling) return;
    this.calling = true;
    try {
      for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) this.call(next);
    } finally {
      this.calling = false;
    }
  }

  private call(call: ContenderCall): void {
    try {
      switch (call.kind) {
        case 'granted':
          this.contender.granted(call.leadership);
          break;
        case 'suspended':
          this.contender.suspended(call.token, call.reason);
          break;
        case 'resumed':
          this.contender.resumed(call.token);
          break;
        case 'revoked':
          this.contender.revoked(call.token, call.reason);
          break;
      }
    } catch (error) {
      this.log.error({ err: asError(error), call: call.kind }, 'contender failed');
      // Whoever cannot take office must not hold it; the others are told again by what follows.
      if (call.kind === 'granted') call.leadership.abdicate('the contender failed when it was granted leadership');
    }
  }
}
