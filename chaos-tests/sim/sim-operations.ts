import type { OperationView } from '../../src/contracts/dispatcher-gateway.ts';
import type { TriggerId } from '../../src/contracts/operations.ts';
import { sleep } from '../../src/kernel/clock.ts';
import { isMillraceError } from '../../src/kernel/errors.ts';
import type { JobId } from '../../src/kernel/ids.ts';
import type { Master } from './sim-client.ts';
import type { SimOperation } from './sim-config.ts';
import type { SimProcess } from './sim-process.ts';
import type { SimWorld } from './sim-world.ts';

const POLL_MS = 200;
/** A job that does not run just now is asked again so often. */
const CONFLICTS_MAX = 8;

export type UntilAnswered = <T>(ask: (master: Master) => Promise<T>) => Promise<T>;

/** Asks for savepoints, checkpoints and stops as a client does: under an id of its own, until it knows the result. */
export class SimOperations {
  /** Begun and, as far as their clients know, without a result; of which job. */
  readonly open = new Map<TriggerId, JobId>();

  constructor(
    private readonly world: SimWorld,
    private readonly process: SimProcess,
    private readonly untilAnswered: UntilAnswered,
  ) {}

  /** The result, as its client is told; undefined when the job did not take the request. */
  async run(
    jobId: JobId,
    operation: SimOperation,
  ): Promise<Exclude<OperationView, { status: 'IN_PROGRESS' }> | undefined> {
    const { triggerId, wish } = operation;
    const begun = await Promise.all(
      Array.from({ length: operation.twice ? 2 : 1 }, () => this.begin(jobId, operation)),
    );
    if (!begun.includes(true)) return undefined;
    this.open.set(triggerId, jobId);
    for (;;) {
      const view = await this.untilAnswered((master) => master.operation({ jobId, triggerId, kind: wish.kind }));
      this.world.trace.event('c', 'operation', triggerId, () => JSON.stringify(view));
      this.world.tell('operationSeen', jobId, triggerId, view);
      if (view.status === 'COMPLETED') {
        this.open.delete(triggerId);
        return view;
      }
      await sleep(this.process.clock, POLL_MS);
    }
  }

  private async begin(jobId: JobId, { triggerId, wish }: SimOperation): Promise<boolean> {
    const { world } = this;
    for (let conflicts = 0; ; conflicts++) {
      const answer = await this.untilAnswered(async (master) => {
        world.tell('operationAsked', jobId, triggerId);
        try {
          await master.begin({ jobId, triggerId, wish });
          world.trace.event('c', 'begun', triggerId, () => JSON.stringify(wish));
          world.tell('operationAnswered', jobId, triggerId, 'begun');
          return 'begun';
        } catch (error) {
          world.tell('operationAnswered', jobId, triggerId, { code: isMillraceError(error) ? error.code : 'INTERNAL' });
          if (isMillraceError(error, 'NOT_FOUND')) world.violated(3, `promised job ${jobId} is not known`);
          if (isMillraceError(error, 'CONFLICT') || isMillraceError(error, 'NOT_FOUND')) return 'refused';
          throw error;
        }
      });
      if (answer === 'begun') return true;
      if (conflicts >= CONFLICTS_MAX) return false;
      await sleep(this.process.clock, POLL_MS);
    }
  }
}
