import type { CommitContext, TwoPhaseCommitSink, TwoPhaseCommitWriter } from '../../../src/api/sink.ts';
import type { Collector, RuntimeContext } from '../../../src/api/functions.ts';
import type { PollStatus, Source, SourceReader } from '../../../src/api/source.ts';
import { UnavailableError } from '../../../src/kernel/errors.ts';
import type { DeploymentId, JobId } from '../../../src/kernel/ids.ts';
import type { KeyedStateBackend, SnapshotOptions, ValueState } from '../../../src/state/ports.ts';
import {
  type OperatorContext,
  type OperatorCut,
  RESOLVED,
  type SubtaskOperator,
} from '../../../src/subtask/operators/operator.ts';
import { cutState, openKeyedState } from '../../../src/subtask/operators/operator-state.ts';
import type { SimProcess } from '../sim-process.ts';
import type { CommittedOutput, SimTransaction } from './committed-output.ts';
import { recordAt, type SimRecord, type SimSplit } from './records.ts';

/** Reads its splits in turn, as far as it is let. */
export class SimSource implements Source<SimRecord, SimSplit> {
  readonly name = 'source';
  readonly boundedness = 'BOUNDED';

  /** Its one reader's splits, as they are now. */
  read: () => readonly SimSplit[] = () => [];

  constructor(private readonly keys: number) {}

  enumerateSplits(): readonly SimSplit[] {
    return [];
  }

  createReader(): SourceReader<SimRecord, SimSplit> {
    const { keys } = this;
    let splits: SimSplit[] = [];
    let turn = 0;
    this.read = () => [...splits];
    return {
      open: async (assigned) => {
        splits = [...assigned];
      },
      poll(out: Collector<SimRecord>, recordsMax: number): PollStatus {
        for (let emitted = 0; emitted < recordsMax; ) {
          const open = splits.findIndex((_, i) => isOpen(splits[(turn + i) % splits.length]));
          if (open < 0) return 'end';
          const index = (turn + open) % splits.length;
          const split = splits[index] as SimSplit;
          splits[index] = { ...split, next: split.next + 1 };
          turn = index + 1;
          out.collect(recordAt(split.split, split.next, keys));
          emitted++;
        }
        return splits.some(isOpen) ? 'more' : 'end';
      },
      available: async () => {},
      snapshot: () => splits,
      close: async () => {},
    };
  }
}

function isOpen(split: SimSplit | undefined): boolean {
  return split !== undefined && split.next < split.end;
}

/** Counts records by key, in the product's keyed state. */
export class CountOperator implements SubtaskOperator {
  readonly site: OperatorContext['site'];
  private backend: KeyedStateBackend | undefined;
  private counts: ValueState<number> | undefined;

  constructor(private readonly context: OperatorContext) {
    this.site = context.site;
  }

  async open(): Promise<void> {
    this.backend = await openKeyedState(this.context);
    this.counts = this.backend.valueState<number>('count');
  }

  process(record: SimRecord): SimRecord {
    const { backend, counts } = this;
    if (backend === undefined || counts === undefined) throw new Error('not open');
    backend.setCurrentKey(record.key);
    const count = (counts.value() ?? 0) + 1;
    counts.update(count);
    return { ...record, count };
  }

  snapshot(checkpointId: number, options?: SnapshotOptions): OperatorCut | undefined {
    return cutState(this.context, { keyed: this.backend }, checkpointId, options);
  }

  checkpointCompleted(checkpointId: number): Promise<void> {
    this.backend?.checkpointCompleted(checkpointId);
    return RESOLVED;
  }

  checkpointAborted(checkpointId: number): void {
    this.backend?.checkpointAborted(checkpointId);
  }

  finish(): Promise<void> {
    return RESOLVED;
  }

  async close(): Promise<void> {
    this.backend?.dispose();
    this.backend = undefined;
  }
}

export interface OutsideWorld {
  readonly output: CommittedOutput;
  /** How one request to it fares; it is always reached in the end. */
  readonly fate: (process: SimProcess) => { readonly delayMs: number; readonly lost: 'no' | 'before' | 'after' };
}

/** A two-phase commit sink whose transactions travel in the checkpoint and become visible outside. */
export class SimSink implements TwoPhaseCommitSink<SimRecord, SimTransaction> {
  readonly name = 'sink';
  readonly twoPhaseCommit = true;

  constructor(
    private readonly process: SimProcess,
    private readonly world: OutsideWorld,
  ) {}

  createWriter(context: RuntimeContext & CommitContext): TwoPhaseCommitWriter<SimRecord, SimTransaction> {
    const { process, world } = this;
    const jobId = context.jobId as JobId;
    const deployment = context.deployment as DeploymentId;
    const { taskName } = context;
    let buffer: SimRecord[] = [];
    const reach = (work: () => void): Promise<void> =>
      process.outside((resolve, reject) => {
        const { delayMs, lost } = world.fate(process);
        process.time.after(delayMs, () => {
          try {
            if (lost !== 'before') work();
          } catch (error) {
            process.time.after(delayMs, () => reject(error));
            return;
          }
          process.time.after(delayMs, () =>
            lost === 'no' ? resolve() : reject(new UnavailableError('the outside world did not answer')),
          );
        });
      });
    const persistently = async (work: () => void): Promise<void> => {
      for (let attempt = 0; ; attempt++) {
        try {
          return await reach(work);
        } catch (error) {
          if (!(error instanceof UnavailableError) || attempt > 20) throw error;
        }
      }
    };
    return {
      open: async (restored) => {
        await persistently(() => world.output.open(jobId, taskName, deployment));
        if (restored.length > 0)
          await persistently(() => world.output.commit(jobId, taskName, deployment, restored, undefined));
      },
      write: (record) => void buffer.push(record),
      ready: () => undefined,
      prepareCommit: async (checkpointId) => {
        const records = buffer;
        buffer = [];
        if (records.length === 0) return [];
        const id = `${jobId}/${taskName}/${deployment}/${context.attemptNumber}/${checkpointId}`;
        return [{ id, jobId, deployment, checkpointId, records }];
      },
      commit: (committables, { checkpointId }) =>
        reach(() => world.output.commit(jobId, taskName, deployment, committables, checkpointId)),
      close: async () => {},
    };
  }
}
