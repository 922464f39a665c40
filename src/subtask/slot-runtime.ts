import type { CheckpointOptions } from '../contracts/checkpoint.ts';
import type { AttemptReport, DataAddress, SlotDeployment } from '../contracts/task.ts';
import { DataExchange } from '../exchange/data-exchange.ts';
import { DEFAULT_EXCHANGE_OPTIONS, type ExchangeOptions } from '../exchange/exchange-options.ts';
import type { RecordCodec } from '../exchange/record-codec.ts';
import { DEFAULT_CODEC, recordCodec } from '../exchange/record-codecs.ts';
import { type Neighbours, PortTransport } from '../exchange/port-transport.ts';
import { type TransportTls, TcpTransport } from '../exchange/tcp-transport.ts';
import type { Transport } from '../exchange/wire.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import { type AttemptId, compareDeployments, type DeploymentId, type JobId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { ProgramLoader, UserProgram } from '../program/user-program.ts';
import type { ChainFactory } from './chain.ts';
import { compiledChainFactory } from './compile/compiled-chain.ts';
import { RunLoop } from './run-loop.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from './slot-runtime-port.ts';
import type { StateBackendFactory } from './state-backend-factory.ts';
import { Subtask, type SubtaskDeps, type SubtaskOptions } from './subtask.ts';
import { checkTask } from './task-lookup.ts';

export interface SlotRuntimeDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly programs: ProgramLoader;
  readonly stateBackends: StateBackendFactory;
  /** Called synchronously from the slot's thread; must not throw. */
  readonly events: SlotRuntimeEvents;
  /** To slots of other processes; default: TCP. */
  readonly transport?: Transport;
  /** The other slots of this process; without, they are reached like all others. */
  readonly neighbours?: Neighbours;
  /** For TCP: mutual TLS. */
  readonly tls?: TransportTls | undefined;
  /** What this slot's tasks write with; default: columnar. They read what any codec wrote. */
  readonly codec?: RecordCodec;
  /** Default: compiled, see `chainFactory`. */
  readonly chains?: ChainFactory;
}

export interface SlotRuntimeOptions {
  /** For logs, e.g. `taskmanager-1/slot-0`. */
  readonly name: string;
  /** Interface the data server binds to. Default `127.0.0.1`. */
  readonly listenHost?: string;
  /** 0 (the default) takes any free port. */
  readonly listenPort?: number;
  /** Host under which other workers reach this slot. Default: `listenHost`. */
  readonly advertisedHost?: string;
  readonly exchange?: Partial<ExchangeOptions>;
  readonly subtask?: Partial<SubtaskOptions>;
}

const DEFAULT_SUBTASK_OPTIONS: SubtaskOptions = { closeTimeoutMs: 5_000, cancelGraceMs: 1_000 };

/**
 * One slot's engine: the data server, the run loop and the subtasks of one job's slot.
 *
 *   R1. One job for life; a slot that changes hands gets another runtime.
 *   R2. One attempt at a subtask at a time: an older one is cancelled before a newer one begins, and never
 *       comes back; nor does anything of a deployment that is over. Regions of the job that were deployed at
 *       different times run side by side, each with its own load of the program.
 */
export class SlotRuntime implements SlotRuntimePort {
  readonly dataAddress: DataAddress;
  private readonly loop: RunLoop;
  private readonly subtaskDeps: SubtaskDeps;
  private readonly subtaskOptions: SubtaskOptions;
  private readonly subtasks = new Map<AttemptId, Subtask>();
  private jobId: JobId | undefined;
  /** Deployments before this one are over. */
  private floor: DeploymentId | undefined;
  /** Submissions are handled one after the other: a newer one waits for the older's tasks to end. */
  private submitting: Promise<void> = Promise.resolve();
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly deps: SlotRuntimeDeps,
    private readonly options: SlotRuntimeOptions,
    private readonly exchange: DataExchange,
    exchangeOptions: ExchangeOptions,
  ) {
    const { clock, random, log, stateBackends, events } = deps;
    this.loop = new RunLoop(clock);
    this.subtaskOptions = { ...DEFAULT_SUBTASK_OPTIONS, ...options.subtask };
    this.subtaskDeps = {
      clock,
      random,
      log,
      stateBackends,
      events,
      exchange,
      exchangeOptions,
      codec: deps.codec ?? recordCodec(DEFAULT_CODEC),
      chains: deps.chains ?? compiledChainFactory,
      loop: this.loop,
    };
    const { host, port } = exchange.address;
    this.dataAddress = { host: options.advertisedHost ?? host, port };
  }

  /** Resolves once the data server listens. */
  static async start(deps: SlotRuntimeDeps, options: SlotRuntimeOptions): Promise<SlotRuntime> {
    const log = deps.log.child({ component: 'slot-runtime', slot: options.name });
    const exchangeOptions: ExchangeOptions = { ...DEFAULT_EXCHANGE_OPTIONS, ...options.exchange };
    const { clock } = deps;
    const host = options.listenHost ?? '127.0.0.1';
    const tcp = deps.transport ?? new TcpTransport({ clock, log, tls: deps.tls }, exchangeOptions);
    const transport =
      deps.neighbours === undefined ? tcp : new PortTransport(deps.neighbours, tcp, options.advertisedHost ?? host);
    const exchange = await DataExchange.start({ clock, log, transport }, exchangeOptions, {
      host,
      port: options.listenPort ?? 0,
    });
    const runtime = new SlotRuntime({ ...deps, log }, options, exchange, exchangeOptions);
    log.debug({ dataAddress: runtime.dataAddress }, 'slot runtime started');
    return runtime;
  }

  submit(deployment: SlotDeployment): Promise<void> {
    const submitted = this.submitting.then(() => this.accept(deployment));
    // The next submission goes on whatever became of this one, whose caller has its error.
    this.submitting = submitted.catch(() => undefined);
    return submitted;
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    for (const attemptId of attemptIds) this.subtasks.get(attemptId)?.cancel();
  }

  triggerCheckpoint(request: {
    readonly attemptIds: readonly AttemptId[];
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly timestampMs: number;
    readonly options: CheckpointOptions;
  }): void {
    const { checkpointId, timestampMs, options } = request;
    for (const attemptId of request.attemptIds) {
      const subtask = this.subtasks.get(attemptId);
      if (subtask?.deploymentId === request.deployment)
        subtask.triggerCheckpoint({ checkpointId, timestampMs, options });
    }
  }

  notifyCheckpointComplete(request: { readonly deployment: DeploymentId; readonly checkpointId: number }): void {
    for (const subtask of this.of(request.deployment)) subtask.checkpointCompleted(request.checkpointId);
  }

  notifyCheckpointAborted(request: {
    readonly deployment: DeploymentId;
    readonly checkpointId: number;
    readonly latestCompletedId: number | undefined;
    readonly andOlder?: boolean | undefined;
  }): void {
    const { checkpointId, latestCompletedId, andOlder } = request;
    for (const subtask of this.of(request.deployment)) {
      if (andOlder === true) subtask.checkpointsAbortedUpTo(checkpointId, latestCompletedId);
      else subtask.checkpointAborted(checkpointId, latestCompletedId);
    }
  }

  attempts(): readonly AttemptReport[] {
    return [...this.subtasks.values()].map((subtask) => subtask.attemptReport());
  }

  /** Cancels what runs, waits for it within the bound, then closes every connection. */
  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A notice is for the tasks of its deployment: no other commits by it. */
  private of(deployment: DeploymentId): Subtask[] {
    return [...this.subtasks.values()].filter((subtask) => subtask.deploymentId === deployment);
  }

  private async accept(request: SlotDeployment): Promise<void> {
    this.checkAcceptable(request);
    for (const task of request.tasks) checkTask(request, task);
    const added = request.tasks.filter(({ attemptId }) => !this.subtasks.has(attemptId));
    if (added.length === 0) return;
    await this.endReplaced(request);
    const program = this.loadProgram(request);
    const subtasks = added.map((task) => new Subtask(this.subtaskDeps, this.subtaskOptions, request, task));
    for (const subtask of subtasks) this.subtasks.set(subtask.attemptId, subtask);
    for (const subtask of subtasks) subtask.start(program);
  }

  private checkAcceptable({ jobId, deployment, tasks }: SlotDeployment): void {
    if (this.closing !== undefined) throw new MillraceError('CLOSED', 'the slot is closing');
    if (this.jobId !== undefined && this.jobId !== jobId) {
      throw new MillraceError('CONFLICT', `the slot belongs to job ${this.jobId}, not to ${jobId}`); // R1
    }
    const keys = new Set(tasks.map(subtaskKeyOf));
    const newest = [...this.subtasks.values()]
      .filter((subtask) => keys.has(subtask.subtaskKey))
      .map((subtask) => subtask.deploymentId)
      .find((other) => compareDeployments(deployment, other) < 0);
    const over = this.floor !== undefined && compareDeployments(deployment, this.floor) < 0 ? this.floor : newest;
    if (over !== undefined) throw new MillraceError('CONFLICT', `deployment ${deployment} was replaced by ${over}`); // R2
  }

  private async endReplaced({ jobId, deployment, oldestLive = deployment, tasks }: SlotDeployment): Promise<void> {
    this.jobId = jobId;
    this.floor = oldestLive;
    const keys = new Set(tasks.map(subtaskKeyOf));
    const replaced = [...this.subtasks.values()].filter(
      (subtask) =>
        compareDeployments(subtask.deploymentId, oldestLive) < 0 ||
        (keys.has(subtask.subtaskKey) && compareDeployments(subtask.deploymentId, deployment) < 0),
    );
    for (const subtask of replaced) subtask.cancel();
    this.exchange.begin(jobId, oldestLive, new Set(replaced.map((subtask) => subtask.attemptId)));
    await Promise.all(replaced.map((subtask) => subtask.ended)); // R2
    for (const subtask of replaced) this.subtasks.delete(subtask.attemptId);
    if (this.closing !== undefined) throw new MillraceError('CLOSED', 'the slot is closing');
  }

  private loadProgram(request: SlotDeployment): Promise<UserProgram> {
    const program = this.deps.programs.load(request.graph);
    // Every task awaits it and fails with its error; should none be left to, it must not go unhandled.
    program.catch((err: unknown) => this.deps.log.debug({ err }, 'program did not load'));
    return program;
  }

  private async closeAll(): Promise<void> {
    for (const subtask of this.subtasks.values()) subtask.cancel();
    await Promise.all([...this.subtasks.values()].map((subtask) => subtask.ended));
    await this.submitting;
    this.loop.close();
    await this.exchange.close();
    this.deps.log.debug({ slot: this.options.name }, 'slot runtime closed');
  }
}

function subtaskKeyOf({ vertexId, subtaskIndex }: SlotDeployment['tasks'][number]): string {
  return `${vertexId}_${subtaskIndex}`;
}
