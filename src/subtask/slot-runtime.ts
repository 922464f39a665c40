import type { CheckpointOptions } from '../contracts/checkpoint.ts';
import type { AttemptReport, DataAddress, SlotDeployment } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ProgramLoader } from '../program/user-program.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from './slot-runtime-port.ts';
import type { StateBackendFactory } from './state-backend-factory.ts';

export interface SlotRuntimeDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly programs: ProgramLoader;
  readonly stateBackends: StateBackendFactory;
  /** Called synchronously from the slot's thread; must not throw. */
  readonly events: SlotRuntimeEvents;
}

export interface SlotRuntimeOptions {
  /** For logs and for the messages of peers, e.g. `taskmanager-1/slot-0`. */
  readonly name: string;
  /** Interface the data server binds to. Default `127.0.0.1`. */
  readonly listenHost?: string;
  /** 0 (the default) takes any free port. */
  readonly listenPort?: number;
  /** Host under which other workers reach this slot. Default: `listenHost`. */
  readonly advertisedHost?: string;
}

/** One slot's engine: the data server, the run loop and the subtasks of one job's slot. */
export class SlotRuntime implements SlotRuntimePort {
  readonly dataAddress: DataAddress;

  private constructor(deps: SlotRuntimeDeps, dataAddress: DataAddress) {
    deps.log.info({ dataAddress }, 'slot runtime started');
    this.dataAddress = dataAddress;
  }

  /** Resolves once the data server listens. */
  static async start(deps: SlotRuntimeDeps, options: SlotRuntimeOptions): Promise<SlotRuntime> {
    return new SlotRuntime(deps, { host: options.advertisedHost ?? options.listenHost ?? '127.0.0.1', port: 0 });
  }

  async submit(deployment: SlotDeployment): Promise<void> {
    throw new MillraceError('INTERNAL', `the engine is being built; cannot run ${deployment.jobId}`);
  }

  cancel(_attemptIds: readonly AttemptId[]): void {}

  triggerCheckpoint(_request: {
    readonly attemptIds: readonly AttemptId[];
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly timestampMs: number;
    readonly options: CheckpointOptions;
  }): void {}

  notifyCheckpointComplete(_request: { readonly deployment: DeploymentId; readonly checkpointId: number }): void {}

  notifyCheckpointAborted(_request: {
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly latestCompletedId: number | undefined;
  }): void {}

  attempts(): readonly AttemptReport[] {
    return [];
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
