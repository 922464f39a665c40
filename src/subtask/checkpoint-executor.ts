import type { InFlightData } from '../contracts/state-handles.ts';
import type { CheckpointAck, CheckpointDecline } from '../contracts/task.ts';
import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { BackgroundTasks } from '../kernel/lifecycle.ts';
import { type InFlightCapture, writeInFlight } from './in-flight.ts';
import type { OperatorCut, SubtaskOperator, WrittenCut } from './operators/operator.ts';
import type { OperatorScope, StateBackendFactory } from './state-backend-factory.ts';

/** Which attempt speaks. */
export type AttemptIdentity = Omit<CheckpointDecline, 'checkpointId' | 'reason'>;

export interface CheckpointExecutorSpec {
  readonly clock: Clock;
  readonly background: BackgroundTasks;
  readonly identity: AttemptIdentity;
  readonly operators: readonly SubtaskOperator[];
  /** Sends the barrier to every consumer, past what is queued if `overtaking`. Gives what it passes. */
  readonly forward: (barrier: CheckpointBarrier, overtaking: boolean) => InFlightCapture | undefined;
  /** Where records in flight are stored. */
  readonly inFlight: { readonly stateBackends: StateBackendFactory; readonly scope: OperatorScope };
  readonly onAck: (ack: CheckpointAck) => void;
  readonly onDecline: (decline: CheckpointDecline) => void;
}

/**
 * Takes snapshots: the barrier first, so that consumers need not wait for us; then every operator
 * cuts, at one instant of the stream; then the cuts are written while records flow again.
 */
export class CheckpointExecutor {
  private readonly uploads = new Map<number, Upload>();

  constructor(private readonly spec: CheckpointExecutorSpec) {}

  /** Synchronous up to the cuts. Throws only when the barrier cannot be forwarded. */
  perform(barrier: CheckpointBarrier, alignmentMs: number, input?: InFlightCapture): void {
    const { checkpointId, options } = barrier;
    const overtaking = input !== undefined || (!options.aligned && options.alignedTimeoutMs === 0);
    const output = this.spec.forward(barrier, overtaking);
    const startedMs = this.spec.clock.nowMs();
    const cuts: OperatorCut[] = [];
    try {
      for (const operator of this.spec.operators) {
        const cut = operator.snapshot(checkpointId, options);
        if (cut !== undefined) cuts.push(cut);
      }
    } catch (error) {
      for (const cut of cuts) cut.discard();
      this.decline(checkpointId, error);
      return;
    }
    const cutMs = this.spec.clock.nowMs();
    const upload = new AbortController();
    let resolveDone = () => {};
    const done = new Promise<void>((resolve) => {
      resolveDone = resolve;
    });
    this.uploads.set(checkpointId, { controller: upload, done });
    this.spec.background.run('write checkpoint', async () => {
      try {
        const [written, inFlight] = await this.writeEverything(checkpointId, cuts, { input, output }, upload);
        if (upload.signal.aborted) return;
        this.acknowledge(checkpointId, written, inFlight, { alignmentMs, startedMs, cutMs });
      } catch (error) {
        // Whoever aborted it knows already.
        if (!isAbortedByMaster(upload)) this.decline(checkpointId, error);
      } finally {
        this.uploads.delete(checkpointId);
        resolveDone();
      }
    });
  }

  /** The master gave it up: no need to write on. */
  abort(checkpointId: number): void {
    this.uploads.get(checkpointId)?.controller.abort(ABORTED_BY_MASTER);
  }

  /** As `abort`, for all up to this one. */
  abortUpTo(checkpointId: number): void {
    for (const [id, { controller }] of this.uploads) if (id <= checkpointId) controller.abort(ABORTED_BY_MASTER);
  }

  abortAll(): void {
    for (const { controller } of this.uploads.values()) controller.abort(ABORTED_BY_MASTER);
  }

  /** Resolves when every snapshot taken so far has been answered or given up. */
  async settled(): Promise<void> {
    await Promise.all([...this.uploads.values()].map(({ done }) => done));
  }

  decline(checkpointId: number, reason: unknown): void {
    this.spec.onDecline({ ...this.spec.identity, checkpointId, reason: toErrorInfo(reason) });
  }

  private async writeEverything(
    checkpointId: number,
    cuts: readonly OperatorCut[],
    captures: { readonly input: InFlightCapture | undefined; readonly output: InFlightCapture | undefined },
    upload: AbortController,
  ): Promise<[readonly WrittenCut[], WrittenInFlight | undefined]> {
    const stored = Promise.all([
      this.writeCapture(checkpointId, 'INPUT', captures.input, upload),
      this.writeCapture(checkpointId, 'OUTPUT', captures.output, upload),
    ]).catch((error: unknown) => {
      upload.abort(error);
      throw error;
    });
    const [cutsWritten, both] = await Promise.allSettled([this.writeAll(cuts, upload), stored]);
    if (cutsWritten.status === 'rejected') throw cutsWritten.reason;
    if (both.status === 'rejected') throw both.reason;
    const parts = both.value.filter((part) => part !== undefined);
    if (parts.length === 0) return [cutsWritten.value, undefined];
    return [
      cutsWritten.value,
      { data: parts.flatMap(({ data }) => data), bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0) },
    ];
  }

  /** Waits until nothing more can come. */
  private async writeCapture(
    checkpointId: number,
    side: 'INPUT' | 'OUTPUT',
    capture: InFlightCapture | undefined,
    upload: AbortController,
  ): Promise<WrittenInFlight | undefined> {
    if (capture === undefined) return undefined;
    await orAborted(capture.done, upload.signal);
    return await writeInFlight({ ...this.spec.inFlight, checkpointId }, side, capture.batches, upload.signal);
  }

  /** All settle before this does, so nothing is written after an answer; the first failure stops the others. */
  private async writeAll(cuts: readonly OperatorCut[], upload: AbortController): Promise<readonly WrittenCut[]> {
    const results = await Promise.allSettled(
      cuts.map(async (cut) => {
        try {
          return await cut.write(upload.signal);
        } catch (error) {
          upload.abort(error);
          throw error;
        }
      }),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw upload.signal.reason === ABORTED_BY_MASTER ? failed.reason : upload.signal.reason;
    return results.flatMap((result) =>
      result.status === 'fulfilled' && result.value !== undefined ? [result.value] : [],
    );
  }

  private acknowledge(
    checkpointId: number,
    written: readonly WrittenCut[],
    inFlight: WrittenInFlight | undefined,
    times: { readonly alignmentMs: number; readonly startedMs: number; readonly cutMs: number },
  ): void {
    this.spec.onAck({
      ...this.spec.identity,
      checkpointId,
      operators: written.map(({ snapshot }) => snapshot),
      ...(inFlight === undefined || inFlight.data.length === 0 ? {} : { inFlight: inFlight.data }),
      ...(inFlight === undefined ? {} : { inFlightBytes: inFlight.bytes }),
      stateBytes: written.reduce((sum, { bytes }) => sum + bytes, inFlight?.bytes ?? 0),
      alignmentMs: times.alignmentMs,
      syncMs: times.cutMs - times.startedMs,
      asyncMs: this.spec.clock.nowMs() - times.cutMs,
    });
  }
}

interface WrittenInFlight {
  readonly data: InFlightData[];
  readonly bytes: number;
}

/** Rejects when the signal aborts first. */
function orAborted(done: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    done.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

interface Upload {
  readonly controller: AbortController;
  /** Never rejects. */
  readonly done: Promise<void>;
}

const ABORTED_BY_MASTER = new MillraceError('CLOSED', 'the checkpoint was aborted');

function isAbortedByMaster(upload: AbortController): boolean {
  return upload.signal.aborted && upload.signal.reason === ABORTED_BY_MASTER;
}
