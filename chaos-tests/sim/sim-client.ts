import { z } from 'zod';
import { type GatewayConnection, type GatewaySpec, method } from '../../src/contracts/gateway.ts';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import type { JobDetailsView } from '../../src/contracts/views.ts';
import { sleep } from '../../src/kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../../src/kernel/errors.ts';
import { asFencingToken, type JobId } from '../../src/kernel/ids.ts';
import type { OperationView, SubmitResult } from '../../src/contracts/dispatcher-gateway.ts';
import type { TriggerId } from '../../src/contracts/operations.ts';
import type { Dispatcher } from '../../src/dispatcher/dispatcher.ts';
import type { SimJob, SimOperation } from './sim-config.ts';
import { SimOperations } from './sim-operations.ts';
import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

interface Submission {
  readonly graph: JobGraph;
  readonly idempotencyKey: string | undefined;
}
type Beginning = { readonly jobId: JobId } & Pick<SimOperation, 'triggerId' | 'wish'>;
type Asking = { readonly jobId: JobId; readonly triggerId: TriggerId; readonly kind: 'SAVEPOINT' | 'CHECKPOINT' };

/** What REST is in the product: requests of clients, to any master. */
const clientSpec = {
  submit: method<Submission, SubmitResult>(z.any(), z.any(), 5_000),
  cancel: method<{ jobId: JobId }, object>(z.any(), z.any(), 5_000),
  details: method<{ jobId: JobId }, JobDetailsView>(z.any(), z.any(), 2_000, { readOnly: true }),
  begin: method<Beginning, object>(z.any(), z.any(), 5_000),
  operation: method<Asking, OperationView>(z.any(), z.any(), 2_000, { readOnly: true }),
} as const satisfies GatewaySpec;

/** Told of each request that arrives: more often than it was asked when the network doubles it. */
export interface Received {
  submission(jobId: JobId): void;
  operation(triggerId: TriggerId): void;
}

export function clientHandler(dispatcher: Dispatcher, received: Received) {
  return {
    submit: ({ graph, idempotencyKey }: Submission) => {
      received.submission(graph.jobId);
      return dispatcher.submitJob(graph, idempotencyKey === undefined ? {} : { idempotencyKey });
    },
    cancel: async ({ jobId }: { jobId: JobId }) => {
      await dispatcher.cancelJob(jobId);
      return {};
    },
    details: ({ jobId }: { jobId: JobId }) => dispatcher.requestJob(jobId),
    begin: async ({ jobId, triggerId, wish }: Beginning) => {
      received.operation(triggerId);
      if (wish.kind === 'SAVEPOINT') await dispatcher.triggerSavepoint(jobId, { ...wish, triggerId });
      else await dispatcher.triggerCheckpoint(jobId, { triggerId, full: wish.full });
      return {};
    },
    operation: ({ jobId, triggerId, kind }: Asking) => dispatcher.requestOperation(jobId, kind, triggerId),
  };
}

const RETRY_MS = 150;

/** The users: they submit, submit again, cancel, stop, go on from savepoints, and remember what they were told. */
export class SimClient {
  readonly process: SimProcess;
  readonly operations: SimOperations;
  /** Jobs that are not submitted, because the one before did not stop with a savepoint. */
  readonly dropped = new Set<JobId>();
  private readonly promised = new Set<JobId>();

  constructor(private readonly world: SimWorld) {
    this.process = world.spawn('c');
    this.operations = new SimOperations(world, this.process, (ask) => this.untilAnswered(ask));
  }

  /** Jobs whose submission was answered. */
  get acknowledged(): ReadonlySet<JobId> {
    return this.promised;
  }

  start(): void {
    for (const job of this.world.config.jobs) {
      if (job.after !== undefined) continue;
      this.later(job.submitAtMs, () => this.submit(job));
      const again = job.keyless ? { ...job, idempotencyKey: undefined } : job;
      if (job.twice) this.later(job.submitAtMs, () => this.submit(again));
      if (job.againAtMs !== undefined) this.later(job.submitAtMs + job.againAtMs, () => this.submit(job));
    }
  }

  /** As a user would look, at whoever answers. */
  details(jobId: JobId): Promise<JobDetailsView> {
    return this.untilAnswered((master) => master.details({ jobId }));
  }

  private async submit(job: SimJob): Promise<void> {
    const { world } = this;
    const { graph, idempotencyKey, cancelAtMs } = job;
    await this.untilAnswered(async (master) => {
      world.tell('submissionAsked', graph.jobId);
      try {
        const result = await master.submit({ graph, idempotencyKey });
        world.trace.event('c', 'submitted', graph.jobId, () => result.outcome);
        world.tell('submissionAnswered', graph.jobId, result);
        const news = !this.promised.has(result.jobId);
        this.promised.add(result.jobId);
        if (news && cancelAtMs !== undefined) this.later(cancelAtMs, () => this.cancel(graph.jobId));
        if (news) this.operate(job);
      } catch (error) {
        const code = isMillraceError(error) ? error.code : 'INTERNAL';
        world.tell('submissionAnswered', graph.jobId, { code });
        throw error;
      }
    });
  }

  private operate({ graph: { jobId }, operations }: SimJob): void {
    const next = this.world.config.jobs.find(({ after }) => after === jobId);
    let open = operations.length;
    let resumed = false;
    for (const operation of operations)
      this.later(operation.atMs, async () => {
        const { wish } = operation;
        const result = await this.operations.run(jobId, operation);
        open--;
        const stopped = wish.kind === 'SAVEPOINT' && wish.stop === 'SUSPEND' && result?.location !== undefined;
        if (next === undefined || resumed) return;
        if (stopped) {
          resumed = true;
          await this.resume(next, result.location);
        } else if (open === 0) this.dropped.add(next.graph.jobId);
      });
  }

  /** The next job begins where the one before has stopped. */
  private async resume(job: SimJob, location: string): Promise<void> {
    const { restoreFrom } = job.graph;
    if (restoreFrom === undefined) return;
    const metadataKey = `${location.slice(location.indexOf(':') + 1)}/_metadata`;
    const resumed = { ...job, graph: { ...job.graph, restoreFrom: { ...restoreFrom, metadataKey } } };
    await Promise.all([this.submit(resumed), job.twice ? this.submit(resumed) : undefined]);
  }

  private async cancel(jobId: JobId): Promise<void> {
    await this.untilAnswered(async (master) => {
      try {
        await master.cancel({ jobId });
        this.world.trace.event('c', 'cancelled', jobId);
        this.world.tell('cancelAnswered', jobId);
      } catch (error) {
        if (isMillraceError(error, 'NOT_FOUND')) this.world.violated(3, `promised job ${jobId} is not known`);
        else if (!isMillraceError(error, 'CONFLICT')) throw error; // It is over already: nothing is promised.
      }
    });
  }

  /** Asks one master after the other until one answers with anything that is not "ask again". */
  private async untilAnswered<T>(ask: (master: Master) => Promise<T>): Promise<T> {
    const { world, process } = this;
    for (;;) {
      const n = process.random.int(world.config.masters);
      const master = world.network.connect(clientSpec, 'client', process, `m${n}:6123`, asFencingToken(0n));
      try {
        return await ask(master);
      } catch (thrown) {
        const error = asError(thrown);
        if (!(error instanceof MillraceError) || !AGAIN.has(error.code)) throw error;
        await sleep(process.clock, RETRY_MS * (0.5 + process.random.next()));
      }
    }
  }

  private later(delayMs: number, work: () => Promise<void>): void {
    this.process.clock.schedule(delayMs, () => {
      work().catch((error: unknown) => {
        this.world.violated(0, `a client got ${asError(error).message}`);
      });
    });
  }
}

export type Master = GatewayConnection<typeof clientSpec>;

const AGAIN = new Set(['NOT_LEADER', 'UNAVAILABLE', 'UNKNOWN_OUTCOME', 'TIMEOUT', 'FENCED', 'CLOSED']);
