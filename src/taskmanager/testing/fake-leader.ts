import type { WorkerRegistration } from '../../contracts/job-manager-gateway.ts';
import type { LeaderInfo, LeaderRetrieval } from '../../contracts/leadership.ts';
import type { AttemptReport, CheckpointAck, CheckpointDecline } from '../../contracts/task.ts';
import { type Clock, sleep } from '../../kernel/clock.ts';
import { MillraceError, NotLeaderError, UnavailableError, UnknownOutcomeError } from '../../kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../../kernel/ids.ts';
import type { JobManagerConnection } from '../leader-link.ts';

type Mode =
  | 'leading'
  /** Its process is gone. */
  | 'dead'
  /** Packets vanish. */
  | 'silent'
  /** It answers, and does not lead (yet). */
  | 'not-leader';

/** A master as its workers see it. */
export class FakeLeader {
  mode: Mode = 'leading';
  readonly token: FencingToken;
  readonly registrations: WorkerRegistration[] = [];
  readonly updates: AttemptReport[] = [];
  readonly acks: CheckpointAck[] = [];
  readonly declines: CheckpointDecline[] = [];
  readonly goodbyes: string[] = [];
  /** Attempts that it knows nothing of. */
  readonly unknown = new Set<string>();
  /** What the next acknowledgements are answered with. */
  ackFailures: Error[] = [];

  constructor(token: number) {
    this.token = asFencingToken(BigInt(token));
  }

  get info(): LeaderInfo {
    return {
      token: this.token,
      replicaId: `jobmanager-${this.token}`,
      incarnation: 'incarnation',
      rpcAddress: `jobmanager-${this.token}:1`,
      restUrl: 'http://rest',
      electedWallMs: 0,
    };
  }

  connect(clock: Clock): JobManagerConnection {
    let closed: (error: Error) => void = () => {};
    const closing = new Promise<never>((_resolve, reject) => {
      closed = reject;
    });
    closing.catch(() => undefined);
    const call =
      <Req, Res>(act: (request: Req) => Res) =>
      (request: Req): Promise<Res> =>
        Promise.race([this.answer(clock, () => act(request)), closing]);
    return {
      registerTaskManager: call((request: WorkerRegistration) => {
        this.registrations.push(request);
        return { heartbeatIntervalMs: 1_000, heartbeatTimeoutMs: 5_000 };
      }),
      disconnectTaskManager: call(({ reason }: { reason: string }) => {
        this.goodbyes.push(reason);
        return {};
      }),
      updateTaskState: call((report: AttemptReport) => {
        this.updates.push(report);
        return { known: !this.unknown.has(report.attemptId) };
      }),
      acknowledgeCheckpoint: call((ack: CheckpointAck) => {
        const failure = this.ackFailures.shift();
        if (failure !== undefined) throw failure;
        this.acks.push(ack);
        return {};
      }),
      declineCheckpoint: call((decline: CheckpointDecline) => {
        this.declines.push(decline);
        return {};
      }),
      close: async () => closed(new MillraceError('CLOSED', 'closed by its owner')),
      onConnectionLost: () => () => {},
    } as unknown as JobManagerConnection;
  }

  private async answer<T>(clock: Clock, act: () => T): Promise<T> {
    switch (this.mode) {
      case 'leading':
        return act();
      case 'dead':
        throw new UnavailableError('connection refused');
      case 'silent':
        await sleep(clock, 2_000);
        throw new UnknownOutcomeError('no answer within 2000 ms');
      case 'not-leader':
        throw new NotLeaderError('still recovering');
    }
  }
}

/** The store's word on who leads. */
export class FakeRetrieval implements LeaderRetrieval {
  private leader: LeaderInfo | undefined;
  private readonly listeners = new Set<(leader: LeaderInfo | undefined) => void>();
  online = true;

  current(): LeaderInfo | undefined {
    return this.leader;
  }

  connected(): boolean {
    return this.online;
  }

  say(leader: FakeLeader | undefined): void {
    this.sayInfo(leader?.info);
  }

  sayInfo(leader: LeaderInfo | undefined): void {
    this.leader = leader;
    for (const listener of this.listeners) listener(this.leader);
  }

  subscribe(listener: (leader: LeaderInfo | undefined) => void): () => void {
    this.listeners.add(listener);
    listener(this.leader);
    return () => void this.listeners.delete(listener);
  }
}
