import type {
  IDuplexStream,
  ILeaseGrantResponse,
  ILeaseKeepAliveRequest,
  ILeaseKeepAliveResponse,
  IRangeResponse,
  ITxnResponse,
} from 'etcd3';
import { type Clock, sleep } from '../../src/kernel/clock.ts';
import { isMillraceError, NotFoundError, UnavailableError } from '../../src/kernel/errors.ts';
import { BackgroundTasks } from '../../src/kernel/lifecycle.ts';
import type { Logger } from '../../src/kernel/log.ts';
import type { Random } from '../../src/kernel/random.ts';
import { checkKey, checkPrefix, checkTransaction, checkTtl } from './check-transaction.ts';
import type {
  Coordination,
  Entry,
  Lease,
  LeaseId,
  Listing,
  Revision,
  Transaction,
  TxnResult,
  Watch,
  WatchEvent,
} from './coordination.ts';
import { EtcdCodec, revisionOf } from './etcd-codec.ts';
import { type RpcFailure, verdictOn } from './etcd-errors.ts';
import { EtcdMember, type EtcdSecurity, type Reply } from './etcd-member.ts';
import { EtcdMembers } from './etcd-members.ts';
import { type EtcdConnection, parseEtcdConnection } from './etcd-options.ts';
import { EtcdWatch } from './etcd-watch.ts';
import { type CallKind, closedError, lostAnswer } from './lost-answer.ts';

export interface EtcdCoordinationDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface EtcdCoordinationOptions extends EtcdSecurity {
  /** All members: `http://host:2379` or `https://…`. */
  readonly endpoints: readonly string[];
  /** Every key is kept under it. Begins and ends with `/`, for example `/millrace/<clusterId>/`. */
  readonly namespace: string;
  /** Every call ends within this (default 1,000). */
  readonly deadlineMs?: number;
}

/** A hung member may cost a call this share of its deadline before the next one is asked. */
const ATTEMPT_SHARE = 0.4;
const ROUND_PAUSE_MS = 50;
const PAGE_ENTRIES = 500;

/**
 * Coordination in an etcd cluster. etcd3 gives connections and the wire format; what decides
 * (which member, how long, what to repeat, what a failure means) is here.
 *
 * - A transaction is sent again only after an answer, or the lack of a connection, that proves that
 *   it had no effect (`verdictOn`). Otherwise it is `UNKNOWN_OUTCOME`.
 * - Reads, renewals, grants and revocations may be repeated: doing them twice does no harm.
 */
export class EtcdCoordination implements Coordination {
  readonly description: string;
  private readonly members: EtcdMembers;
  private readonly codec: EtcdCodec;
  private readonly tasks: BackgroundTasks;
  private readonly watches = new Set<EtcdWatch>();
  private readonly deadlineMs: number;
  private closing: Promise<void> | undefined;

  /** Connects when first called, so it can be made while etcd is away. @throws CONFIGURATION with every problem. */
  constructor(
    private readonly deps: EtcdCoordinationDeps,
    options: EtcdCoordinationOptions,
  ) {
    const connection: EtcdConnection = parseEtcdConnection(options);
    this.description = connection.description;
    this.deadlineMs = connection.deadlineMs;
    this.codec = new EtcdCodec(connection.namespace);
    this.tasks = new BackgroundTasks(deps.log);
    const wallMs = () => deps.clock.wallMs();
    const members = connection.endpoints.map((endpoint) => new EtcdMember(endpoint, options, this.attemptMs, wallMs));
    this.members = new EtcdMembers(members, deps.clock, deps.random);
  }

  async get(key: string): Promise<Entry | undefined> {
    checkKey(key);
    const payload = { key: this.codec.key(key) };
    const response = await this.repeat('get', (member, timeoutMs) =>
      member.call<IRangeResponse>('KV', 'range', payload, timeoutMs),
    );
    const [found] = response.kvs;
    return found === undefined ? undefined : this.codec.entry(found);
  }

  /** Page by page, all at the revision of the first; begun again if that is compacted in between. */
  async list(prefix: string): Promise<Listing> {
    checkPrefix(prefix);
    const range = this.codec.range(prefix);
    const endMs = this.deps.clock.nowMs() + this.deadlineMs;
    let key = range.key;
    let revision: Revision | undefined;
    let entries: Entry[] = [];
    for (;;) {
      const at = revision === undefined ? {} : { revision: String(revision) };
      const payload = { ...range, ...at, key, limit: PAGE_ENTRIES, sort_target: 'KEY', sort_order: 'ASCEND' };
      const page = await this.page(payload, endMs);
      if (page === 'compacted') {
        key = range.key;
        revision = undefined;
        entries = [];
        continue;
      }
      revision ??= revisionOf(page);
      for (const kv of page.kvs) entries.push(this.codec.entry(kv));
      const last = page.kvs.at(-1);
      if (!page.more || last === undefined) return { entries, revision };
      key = Buffer.concat([last.key, Buffer.from([0])]);
    }
  }

  async txn(transaction: Transaction): Promise<TxnResult> {
    checkTransaction(transaction);
    const payload = this.codec.request(transaction);
    const response = await this.once((member, timeoutMs) => member.call<ITxnResponse>('KV', 'txn', payload, timeoutMs));
    return this.codec.result(transaction, response);
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    checkTtl(ttlMs);
    // An answer lost here leaves a lease that nobody knows of and that expires by itself.
    const payload = { TTL: Math.ceil(ttlMs / 1_000), ID: 0 };
    const response = await this.repeat('grantLease', (member, timeoutMs) =>
      member.call<ILeaseGrantResponse>('Lease', 'leaseGrant', payload, timeoutMs),
    );
    return { id: response.ID, grantedTtlMs: Number(response.TTL) * 1_000 };
  }

  async keepAlive(lease: LeaseId): Promise<{ readonly ttlMs: number }> {
    checkLeaseId(lease);
    const response = await this.repeat('keepAlive', (member, timeoutMs) => renewOnce(member, lease, timeoutMs));
    const ttlMs = Number(response.TTL) * 1_000;
    if (ttlMs <= 0) throw new NotFoundError(`lease ${lease} has expired or was revoked`);
    return { ttlMs };
  }

  async revokeLease(lease: LeaseId): Promise<void> {
    try {
      checkLeaseId(lease);
      await this.repeat('revokeLease', (member, timeoutMs) =>
        member.call('Lease', 'leaseRevoke', { ID: lease }, timeoutMs),
      );
    } catch (error) {
      // Gone is what was asked for, also when an earlier attempt of ours did it.
      if (!isMillraceError(error, 'NOT_FOUND')) throw error;
    }
  }

  watch(prefix: string, afterRevision: Revision, listener: (event: WatchEvent) => void): Watch {
    checkPrefix(prefix);
    this.requireOpen();
    const watch = new EtcdWatch({
      clock: this.deps.clock,
      tasks: this.tasks,
      members: this.members,
      codec: this.codec,
      prefix,
      afterRevision,
      listener,
      list: (of) => this.list(of),
      deadlineMs: this.deadlineMs,
      onClose: () => this.watches.delete(watch),
    });
    this.watches.add(watch);
    return watch;
  }

  close(): Promise<void> {
    this.closing ??= this.shutDown();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async shutDown(): Promise<void> {
    for (const watch of [...this.watches]) await watch.close();
    this.members.close();
    await this.tasks.drain();
  }

  private get attemptMs(): number {
    return this.deadlineMs * ATTEMPT_SHARE;
  }

  private async page(payload: object, endMs: number): Promise<IRangeResponse | 'compacted'> {
    const send = (member: EtcdMember, timeoutMs: number) =>
      member.call<IRangeResponse>('KV', 'range', payload, timeoutMs);
    return this.attempts<IRangeResponse | 'compacted'>('list', endMs, this.attemptMs, send, (verdict) =>
      verdict === 'compacted' ? 'compacted' : undefined,
    );
  }

  private repeat<T>(kind: CallKind, send: Send<T>): Promise<T> {
    return this.attempts(kind, this.deps.clock.nowMs() + this.deadlineMs, this.attemptMs, send);
  }

  /** C5: the whole deadline for the one attempt that counts, and none after it. */
  private once<T>(send: Send<T>): Promise<T> {
    return this.attempts('txn', this.deps.clock.nowMs() + this.deadlineMs, this.deadlineMs, send);
  }

  /** Member after member, round after round, until one answers, one refuses, or the deadline is there. */
  private async attempts<T>(
    kind: CallKind,
    endMs: number,
    attemptMs: number,
    send: Send<T>,
    instead: (verdict: string) => T | undefined = () => undefined,
  ): Promise<T> {
    const { clock } = this.deps;
    let last: RpcFailure = { code: 14, details: 'no member was asked' };
    let lost = false;
    for (;;) {
      for (const member of this.members.inOrder()) {
        this.requireOpen();
        const leftMs = endMs - clock.nowMs();
        if (leftMs <= 0) throw this.failure(kind, last, lost);
        const reply = await send(member, Math.min(leftMs, attemptMs));
        if (reply.kind === 'answer') {
          this.members.trust(member);
          return reply.answer;
        }
        last = reply.failure;
        const verdict = verdictOn(last);
        const substitute = instead(verdict.kind);
        if (substitute !== undefined) return substitute;
        if (verdict.kind === 'refused') throw verdict.error;
        if (verdict.kind === 'expired-token') member.logInAgain();
        else this.members.suspect(member);
        if (verdict.kind === 'lost') {
          lost = true;
          if (kind === 'txn') throw this.failure(kind, last, lost);
        }
      }
      if (clock.nowMs() + ROUND_PAUSE_MS >= endMs) throw this.failure(kind, last, lost);
      await sleep(clock, ROUND_PAUSE_MS);
    }
  }

  private failure(kind: CallKind, last: RpcFailure, lost: boolean): Error {
    if (this.closing !== undefined && !lost) return closedError(this.description);
    const message = `${this.description}: ${kind} was not answered within ${this.deadlineMs} ms: ${last.details}`;
    if (lost) return lostAnswer(kind, message);
    return new UnavailableError(message, {
      hint: 'Check that a majority of the etcd members runs and can be reached.',
    });
  }

  private requireOpen(): void {
    if (this.closing !== undefined) throw closedError(this.description);
  }
}

type Send<T> = (member: EtcdMember, timeoutMs: number) => Promise<Reply<T>>;

/**
 * Renews once over a stream of its own. A shared stream, as etcd clients usually keep, hangs with
 * its member and costs the lease although other members would answer.
 */
async function renewOnce(
  member: EtcdMember,
  lease: LeaseId,
  timeoutMs: number,
): Promise<Reply<ILeaseKeepAliveResponse>> {
  const opened = await member.stream<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>(
    'Lease',
    'leaseKeepAlive',
    timeoutMs,
    timeoutMs,
  );
  if (opened.kind === 'failure') return opened;
  const stream: IDuplexStream<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse> = opened.answer;
  return new Promise((resolve) => {
    const fail = (failure: RpcFailure) => resolve({ kind: 'failure', failure });
    stream.on('data', (answer) => {
      resolve({ kind: 'answer', answer });
      stream.end();
    });
    stream.on('error', (error) => {
      const { code = 2, details = error.message } = error as Partial<RpcFailure> & Error;
      fail({ code, details });
    });
    stream.on('end', () => fail({ code: 14, details: 'the stream ended without an answer' }));
    stream.write({ ID: lease });
  });
}

/** Another adapter's lease ids, or nonsense, are no lease of etcd's. */
function checkLeaseId(lease: LeaseId): void {
  if (!/^\d{1,19}$/.test(lease)) throw new NotFoundError(`there is no lease ${JSON.stringify(lease)}`);
}
