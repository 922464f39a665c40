import type { IDuplexStream, IWatchRequest, IWatchResponse } from 'etcd3';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { present } from '../../src/kernel/assert.ts';
import { asError } from '../../src/kernel/errors.ts';
import type { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import type { Listing, Revision, Watch, WatchEvent } from './coordination.ts';
import { type EtcdCodec, revisionOf } from './etcd-codec.ts';
import type { EtcdMember } from './etcd-member.ts';
import type { EtcdMembers } from './etcd-members.ts';

export interface EtcdWatchOptions {
  readonly clock: Clock;
  readonly tasks: BackgroundTasks;
  readonly members: EtcdMembers;
  readonly codec: EtcdCodec;
  readonly prefix: string;
  readonly afterRevision: Revision;
  readonly listener: (event: WatchEvent) => void;
  readonly list: (prefix: string) => Promise<Listing>;
  /** A stream that is not set up within this is given up. */
  readonly deadlineMs: number;
  readonly onClose: () => void;
}

type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

/** Constant: a watch that waits longer and longer is blind just when the cluster comes back. */
const RECONNECT_MS = 100;
const LOG_IN_MS = 1_000;
const COMPACTED = 'compacted';

/**
 * One watch over one stream at a time.
 *
 * Invariants:
 *   W1. `last` is the greatest revision whose events were delivered (or that a listing covers); every
 *       stream starts at `last + 1`, and events up to `last` are dropped. So whatever breaks, no
 *       event is missed and none comes twice. etcd never splits one revision over two responses.
 *   W2. Only events move `last`: this etcd line's progress notices may overtake events.
 *   W3. When `last + 1` was compacted away, a full listing stands for what is lost: 'reset'.
 */
export class EtcdWatch implements Watch {
  private last: Revision;
  private closed = false;
  private said: 'connected' | 'disconnected' = 'connected';
  private stop: (reason: string) => void = () => undefined;
  private pause: Timer | undefined;
  private wake: () => void = () => undefined;

  constructor(private readonly options: EtcdWatchOptions) {
    this.last = options.afterRevision;
    options.tasks.run(`watch ${options.prefix}`, () => this.run());
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.stop('closed');
    this.pause?.cancel();
    this.wake();
    this.options.onClose();
  }

  private async run(): Promise<void> {
    while (!this.closed) {
      const member = present(this.options.members.inOrder()[0], 'a member');
      const reason = await this.streamFrom(member);
      if (reason === COMPACTED) {
        await this.reset();
        continue;
      }
      this.disconnected(reason);
      // A token that has expired looks like a missing permission here. Log-ins are dear to etcd.
      const refused = /permission denied|invalid auth token/.test(reason);
      if (refused) member.logInAgain();
      await this.wait(refused ? LOG_IN_MS : RECONNECT_MS);
    }
  }

  /** Delivers events until the stream breaks; resolves with the reason. */
  private async streamFrom(member: EtcdMember): Promise<string> {
    const { codec, prefix, deadlineMs, clock, members } = this.options;
    const opened = await member.stream<IWatchRequest, IWatchResponse>('Watch', 'watch', deadlineMs);
    if (opened.kind === 'failure') {
      members.suspect(member);
      return opened.failure.details;
    }
    const stream = opened.answer;
    if (this.closed) {
      stream.cancel();
      return 'closed';
    }
    return new Promise<string>((resolve) => {
      let ended = false;
      const forget = members.onSuspect((one) => {
        if (one === member) end(`${member.endpoint} does not answer`);
      });
      const setUp = clock.schedule(deadlineMs, () => {
        end(`${member.endpoint} did not set up the watch`);
        members.suspect(member);
      });
      const end = (reason: string) => {
        if (ended) return;
        ended = true;
        forget();
        setUp.cancel();
        stream.cancel();
        resolve(reason);
      };
      this.stop = end;
      const broke = (reason: string) => {
        if (ended) return;
        end(reason);
        // Put last, or the next stream might go to the member that has just gone.
        if (!this.closed) members.suspect(member);
      };
      stream.on('error', (error) => broke(error.message));
      stream.on('end', () => broke('the stream ended'));
      stream.on('data', (response) => {
        if (ended) return;
        if (response.canceled) {
          end(BigInt(response.compact_revision) > 0n ? COMPACTED : `etcd cancelled it: ${response.cancel_reason}`);
          return;
        }
        if (response.created) {
          setUp.cancel();
          this.said = 'connected';
          if (revisionOf(response) < this.last) this.checkRewound(stream, end);
          return;
        }
        this.deliver(response);
      });
      const start = this.last + 1n;
      stream.write({ create_request: { ...codec.range(prefix), start_revision: String(start < 1n ? 1n : start) } });
    });
  }

  private deliver(response: IWatchResponse): void {
    const { codec } = this.options;
    const before = this.last;
    for (const event of response.events) {
      const revision = BigInt(event.kv.mod_revision);
      if (revision <= before) continue;
      this.last = revision;
      if (event.type.toLowerCase() === 'put') this.tell({ kind: 'put', entry: codec.entry(event.kv), revision });
      else this.tell({ kind: 'delete', key: codec.keyOf(event.kv), revision });
    }
  }

  /**
   * The member is behind what we have seen. Usually it lags and will catch up. But an etcd that was
   * restored from a backup would leave us waiting for a revision far in the future, hearing nothing:
   * a linearizable read tells which.
   */
  private checkRewound(stream: WatchStream, end: (reason: string) => void): void {
    this.options.tasks.run('check revision', async () => {
      try {
        const { revision } = await this.options.list(this.options.prefix);
        if (revision < this.last) end(COMPACTED);
      } catch (error) {
        // Not known: start over rather than wait on a stream that may be deaf.
        end(`cannot tell whether etcd went back: ${asError(error).message}`);
        stream.cancel();
      }
    });
  }

  private async reset(): Promise<void> {
    while (!this.closed) {
      try {
        const listing = await this.options.list(this.options.prefix);
        this.last = listing.revision;
        this.tell({ kind: 'reset', listing });
        return;
      } catch (error) {
        this.disconnected(asError(error).message);
        await this.wait(RECONNECT_MS);
      }
    }
  }

  private disconnected(reason: string): void {
    if (this.said === 'disconnected' || this.closed) return;
    this.said = 'disconnected';
    this.tell({ kind: 'disconnected', reason });
  }

  private tell(event: WatchEvent): void {
    if (!this.closed) this.options.listener(event);
  }

  private wait(ms: number): Promise<void> {
    if (this.closed) return Promise.resolve();
    return new Promise((resolve) => {
      this.wake = resolve;
      this.pause = this.options.clock.schedule(ms, resolve);
    });
  }
}
