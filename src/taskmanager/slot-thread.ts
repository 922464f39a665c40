import { type MessagePort, Worker } from 'node:worker_threads';
import type { AttemptReport, DataAddress, SlotDeployment } from '../contracts/task.ts';
import { present } from '../kernel/assert.ts';
import type { Clock } from '../kernel/clock.ts';
import { asError, fromErrorInfo, MillraceError } from '../kernel/errors.ts';
import type { AttemptId, JobId } from '../kernel/ids.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import type { SlotRuntimeOptions } from '../subtask/slot-runtime.ts';
import { hardHeapLimitMb, outOfMemory } from './heap-guard.ts';
import type { FromSlot, SlotThreadData, ToSlot } from './slot-protocol.ts';

export interface SlotThreadOptions {
  readonly workerUrl: URL;
  readonly workerData: unknown;
  /** JavaScript heap that the thread's live data may take; see {@link guardHeap}. */
  readonly heapBytes: number;
  readonly reportIntervalMs: number;
  /** How long the thread may take to end by itself. */
  readonly closeGraceMs: number;
  /** Gives the port to the slot of this process that serves the address. False: there is none. */
  readonly handOver: (address: DataAddress, port: MessagePort) => boolean;
}

/** V8 would take three times that before it collects: some 30 MB more of each slot stay resident (benchmark `memory`). */
const YOUNG_GENERATION_MB = 16;

interface Assignment {
  readonly jobId: JobId;
  readonly events: SlotRuntimeEvents;
}

/**
 * A slot's thread as the main thread sees it: a {@link SlotRuntimePort} over messages. Used once, by one
 * job, and then ended, so that no user code outlives its job.
 */
export class SlotThread implements SlotRuntimePort {
  /** Unique in the process, for ever. */
  readonly threadId: number;
  private readonly worker: Worker;
  private readonly loading = promiseOf<void>();
  private readonly starting = promiseOf<DataAddress>();
  private readonly submits = new Map<number, ReturnType<typeof promiseOf<void>>>();
  private readonly exiting = promiseOf<void>();
  private address: DataAddress | undefined;
  private assignment: Assignment | undefined;
  private latest: readonly AttemptReport[] = [];
  private nextCallId = 0;
  private failure: Error | undefined;
  private closing: Promise<void> | undefined;
  private gone = false;

  constructor(
    private readonly clock: Clock,
    private readonly options: SlotThreadOptions,
  ) {
    const { workerUrl, workerData: data, reportIntervalMs, heapBytes } = options;
    const threadData: SlotThreadData = { millraceSlot: true, reportIntervalMs, heapBytes, data };
    this.worker = new Worker(workerUrl, {
      workerData: threadData,
      resourceLimits: {
        maxOldGenerationSizeMb: hardHeapLimitMb(heapBytes),
        maxYoungGenerationSizeMb: YOUNG_GENERATION_MB,
      },
    });
    this.threadId = this.worker.threadId;
    this.worker.on('message', (message: FromSlot) => this.receive(message));
    this.worker.on('messageerror', (error) => this.fail(error));
    this.worker.on('error', (error) => this.fail(describeDeath(asError(error), heapBytes)));
    this.worker.on('exit', (code) => this.onExit(code));
  }

  /** Resolves once the thread's code is loaded; rejects when that fails. */
  get loaded(): Promise<void> {
    return this.loading.promise;
  }

  /** Resolves when the thread has ended, however it did. */
  get exited(): Promise<void> {
    return this.exiting.promise;
  }

  get dataAddress(): DataAddress {
    return present(this.address, 'data address of a started slot thread');
  }

  /** Gives the thread to a job. `events` hears of a crash exactly once, and of nothing after `close`. */
  async assign(jobId: JobId, options: SlotRuntimeOptions, events: SlotRuntimeEvents): Promise<void> {
    await this.loading.promise;
    this.post({ kind: 'start', options });
    this.address = await this.starting.promise;
    // From here on a death is a crash of the job's slot; before, it is a failed start.
    if (this.gone) throw this.deathError();
    this.assignment = { jobId, events };
  }

  async submit(deployment: SlotDeployment): Promise<void> {
    if (this.gone || this.closing !== undefined) throw this.deathError();
    const callId = this.nextCallId++;
    const call = promiseOf<void>();
    this.submits.set(callId, call);
    this.post({ kind: 'submit', callId, deployment });
    await call.promise;
  }

  /** Another slot of this process wants to read from this one. False: not under this address, or not any more. */
  takeNeighbour(address: DataAddress, port: MessagePort): boolean {
    const own = this.address;
    if (this.gone || own === undefined || own.port !== address.port || own.host !== address.host) return false;
    this.post({ kind: 'neighbour', port }, [port]);
    return true;
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    this.post({ kind: 'cancel', attemptIds });
  }

  triggerCheckpoint(request: Parameters<SlotRuntimePort['triggerCheckpoint']>[0]): void {
    this.post({ kind: 'trigger', request });
  }

  notifyCheckpointComplete(request: Parameters<SlotRuntimePort['notifyCheckpointComplete']>[0]): void {
    this.post({ kind: 'complete', request });
  }

  notifyCheckpointAborted(request: Parameters<SlotRuntimePort['notifyCheckpointAborted']>[0]): void {
    this.post({ kind: 'aborted', request });
  }

  attempts(): readonly AttemptReport[] {
    return this.latest;
  }

  /** Asks the thread to end, and ends it when it does not; resolves when it is gone. */
  close(): Promise<void> {
    this.closing ??= this.endThread();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async endThread(): Promise<void> {
    this.assignment = undefined;
    if (!this.gone) {
      this.post({ kind: 'close' });
      // A thread that is terminated while native modules initialise in it takes the whole process with it:
      // their errors have no JavaScript left to be thrown into. What loads is our own code, and does end.
      await Promise.allSettled([this.loading.promise]);
      const timer = this.clock.schedule(this.options.closeGraceMs, () => {
        // `exited` is what we wait for; terminate's own promise says the same.
        void this.worker.terminate();
      });
      await this.exiting.promise;
      timer.cancel();
    }
  }

  private post(message: ToSlot, transfer: readonly MessagePort[] = []): void {
    if (!this.gone) this.worker.postMessage(message, transfer);
  }

  private receive(message: FromSlot): void {
    const events = this.assignment?.events;
    switch (message.kind) {
      case 'loaded':
        this.loading.resolve();
        return;
      case 'started':
        this.starting.resolve(message.dataAddress);
        return;
      case 'startFailed':
        this.starting.reject(fromErrorInfo(message.error));
        return;
      case 'submitted':
        this.settleSubmit(message);
        return;
      case 'state':
        events?.taskState(message.report);
        return;
      case 'ack':
        events?.checkpointAck(message.ack);
        return;
      case 'decline':
        events?.checkpointDecline(message.decline);
        return;
      case 'attempts':
        this.latest = message.reports;
        return;
      case 'handOver': {
        const found = this.options.handOver(message.address, message.port);
        this.post({ kind: 'handedOver', callId: message.callId, found });
        return;
      }
      case 'crashed':
        this.fail(fromErrorInfo(message.error));
        return;
      case 'closed':
        return;
    }
  }

  private settleSubmit({ callId, error }: Extract<FromSlot, { kind: 'submitted' }>): void {
    const call = this.submits.get(callId);
    this.submits.delete(callId);
    if (error === undefined) call?.resolve();
    else call?.reject(fromErrorInfo(error));
  }

  /** The engine or its thread is broken: whatever remains of it is ended, and its exit reports the crash. */
  private fail(error: Error): void {
    this.failure ??= error;
    void this.worker.terminate();
  }

  private onExit(code: number): void {
    this.gone = true;
    this.failure ??= this.closing === undefined ? exitError(code) : undefined;
    const error = this.deathError();
    this.loading.reject(error);
    this.starting.reject(error);
    for (const call of this.submits.values()) call.reject(error);
    this.submits.clear();
    const assignment = this.assignment;
    this.assignment = undefined;
    this.exiting.resolve();
    assignment?.events.crashed(assignment.jobId, error);
  }

  private deathError(): Error {
    return this.failure ?? new MillraceError('CLOSED', 'the slot’s thread has ended');
  }
}

function describeDeath(error: Error, heapBytes: number): MillraceError {
  if ((error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY') return outOfMemory(heapBytes, error);
  if (error instanceof MillraceError) return error;
  return new MillraceError('USER_CODE', `the slot’s thread died of an uncaught error: ${error.message}`, {
    cause: error,
  });
}

function exitError(code: number): MillraceError {
  return new MillraceError('USER_CODE', `the slot’s thread ended by itself with exit code ${code}`, {
    hint: 'Does the program call process.exit()?',
  });
}

/** A promise with its ends outside. A rejection that nobody waits for is not an unhandled one. */
function promiseOf<T>() {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  // Whoever awaits it still sees the rejection; a thread that dies while nobody waits reports by events.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
