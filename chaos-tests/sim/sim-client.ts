import { z } from 'zod';
import { type GatewayConnection, type GatewaySpec, method } from '../../src/contracts/gateway.ts';
import type { JobGraph } from '../../src/contracts/job-graph.ts';
import type { JobDetailsView } from '../../src/contracts/views.ts';
import { sleep } from '../../src/kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../../src/kernel/errors.ts';
import { asFencingToken, type JobId } from '../../src/kernel/ids.ts';
import type { SubmitResult } from '../../src/contracts/dispatcher-gateway.ts';
import type { Dispatcher } from '../../src/dispatcher/dispatcher.ts';
import type { SimJob } from './sim-config.ts';
import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

/** What REST is in the product: requests of clients, to any master. */
const clientSpec = {
  submit: method<{ graph: JobGraph; idempotencyKey: string | undefined }, SubmitResult>(z.any(), z.any(), 5_000),
  cancel: method<{ jobId: JobId }, object>(z.any(), z.any(), 5_000),
  details: method<{ jobId: JobId }, JobDetailsView>(z.any(), z.any(), 2_000, { readOnly: true }),
} as const satisfies GatewaySpec;

export function clientHandler(dispatcher: Dispatcher) {
  return {
    submit: ({ graph, idempotencyKey }: { graph: JobGraph; idempotencyKey: string | undefined }) =>
      dispatcher.submitJob(graph, idempotencyKey === undefined ? {} : { idempotencyKey }),
    cancel: async ({ jobId }: { jobId: JobId }) => {
      await dispatcher.cancelJob(jobId);
      return {};
    },
    details: ({ jobId }: { jobId: JobId }) => dispatcher.requestJob(jobId),
  };
}

const RETRY_MS = 150;

/** The users: they submit, submit again, cancel, and remember what they were told. */
export class SimClient {
  readonly process: SimProcess;
  private readonly promised = new Set<JobId>();

  constructor(private readonly world: SimWorld) {
    this.process = world.spawn('c');
  }

  /** Jobs whose submission was answered. */
  get acknowledged(): ReadonlySet<JobId> {
    return this.promised;
  }

  start(): void {
    for (const job of this.world.config.jobs) {
      this.later(job.submitAtMs, () => this.submit(job));
      if (job.twice) this.later(job.submitAtMs, () => this.submit(job));
      if (job.againAtMs !== undefined) this.later(job.submitAtMs + job.againAtMs, () => this.submit(job));
    }
  }

  /** As a user would look, at whoever answers. */
  details(jobId: JobId): Promise<JobDetailsView> {
    return this.untilAnswered((master) => master.details({ jobId }));
  }

  private async submit({ graph, idempotencyKey, cancelAtMs }: SimJob): Promise<void> {
    const { world } = this;
    await this.untilAnswered(async (master) => {
      world.tell('submissionAsked', graph.jobId);
      try {
        const result = await master.submit({ graph, idempotencyKey });
        world.trace.event('c', 'submitted', graph.jobId, () => result.outcome);
        world.tell('submissionAnswered', graph.jobId, result);
        const news = !this.promised.has(result.jobId);
        this.promised.add(result.jobId);
        if (news && cancelAtMs !== undefined) this.later(cancelAtMs, () => this.cancel(graph.jobId));
      } catch (error) {
        const code = isMillraceError(error) ? error.code : 'INTERNAL';
        world.tell('submissionAnswered', graph.jobId, { code });
        throw error;
      }
    });
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

type Master = GatewayConnection<typeof clientSpec>;

const AGAIN = new Set(['NOT_LEADER', 'UNAVAILABLE', 'UNKNOWN_OUTCOME', 'TIMEOUT', 'FENCED', 'CLOSED']);
