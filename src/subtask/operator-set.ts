import type { Clock } from '../kernel/clock.ts';
import { asError } from '../kernel/errors.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { settleWithin } from './bounded-wait.ts';
import type { SubtaskOperator } from './operators/operator.ts';

export interface OperatorSetDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly background: BackgroundTasks;
}

/** A task's operators: opened together, and each closed once it has opened, whenever that is. */
export class OperatorSet {
  /** Settles with each operator's opening. */
  private opening: readonly Promise<void>[] = [];

  constructor(
    private readonly deps: OperatorSetDeps,
    readonly all: readonly SubtaskOperator[],
  ) {}

  /** Rejects with the first failure, once all have settled: closing finds nothing half open. */
  async open(): Promise<void> {
    this.opening = this.all.map(async (operator) => operator.open());
    const results = await Promise.allSettled(this.opening);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** Never rejects. What is not closed within `limitMs` is logged, and closed when it lets itself be. */
  async close(limitMs: number): Promise<void> {
    await Promise.all(this.all.map((operator, i) => this.closeOne(operator, this.opening[i], limitMs)));
  }

  private async closeOne(
    operator: SubtaskOperator,
    opening: Promise<void> | undefined,
    limitMs: number,
  ): Promise<void> {
    const work = (async () => {
      await opening?.catch(() => undefined); // told by `open`; what opened halfway is closed all the same
      await operator.close();
    })();
    const failure = await settleWithin(this.deps.clock, limitMs, work);
    if (failure === undefined) return;
    const { log, background } = this.deps;
    log.warn({ err: failure, operator: operator.site.name }, 'operator did not close');
    background.run('close late', () =>
      work.catch((error: unknown) =>
        log.debug({ err: asError(error), operator: operator.site.name }, 'operator did not close late either'),
      ),
    );
  }
}
