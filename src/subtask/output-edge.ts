import type { ChannelMessage, CheckpointBarrier, LatencyMarker, RecordsMessage } from '../exchange/channel-message.ts';
import { DirectLine } from '../exchange/direct-line.ts';
import { NO_PAYLOAD } from '../exchange/frame.ts';
import { RecordCopies } from '../exchange/record-copies.ts';
import type { RecordCodec, RecordEncoder } from '../exchange/record-codec.ts';
import type { Subpartition } from '../exchange/subpartition.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { RecordOutput } from './chain.ts';
import type { InFlightEdge } from './in-flight.ts';
import type { IoMeter } from './io-meter.ts';
import { type OperatorSite, userCodeError } from './operator-error.ts';
import type { SelectSubpartition } from './partitioner.ts';
import type { Element } from './time/element.ts';
import type { TimeSignal } from './time/timed-operator.ts';

export interface BatchLimits {
  readonly batchBytes: number;
  readonly batchRecords: number;
  readonly frameBytesMax: number;
}

export interface OutputEdgeSpec {
  readonly edgeId: string;
  /** The operator whose results leave here. */
  readonly site: OperatorSite;
  readonly select: SelectSubpartition;
  readonly subpartitions: readonly Subpartition[];
  readonly codec: RecordCodec;
  /** By subpartition: whether its consumer runs in this thread. */
  readonly local?: readonly boolean[];
  readonly limits: BatchLimits;
  readonly meter: IoMeter;
  /** Set where event time travels on this edge: what is said there of the record in hand. */
  readonly element?: Element | undefined;
  /** Set where barriers may overtake. */
  readonly inFlight?: { readonly edge: InFlightEdge; readonly producer: number; readonly firstConsumer: number };
  /** A record has entered an open batch: someone must see to it that it leaves in time. */
  readonly onBuffered: () => void;
}

/** One batch being gathered, for one subpartition or, when broadcast, for all of them at once. */
interface OpenBatch {
  /** Copies when the one consumer is in this thread. */
  readonly encoder: RecordEncoder | RecordCopies;
  readonly targets: readonly Subpartition[];
  /** Past the batch, to a consumer in this thread. */
  readonly line: DirectLine | undefined;
  /** Follows the batch. */
  marker: LatencyMarker | undefined;
}

/** Sends the records of one edge to its subpartitions, in batches. */
export class OutputEdge implements RecordOutput {
  /** For a chain that uses it by itself: set where there is nothing to choose. */
  readonly line: DirectLine | undefined;
  private readonly batches: readonly OpenBatch[];
  private readonly select: (record: unknown) => number;
  /** The subpartition that got the last latency marker. */
  private marked = 0;
  /** For looks at records that go over a line. */
  private readonly looked = new RecordCopies();

  constructor(private readonly spec: OutputEdgeSpec) {
    const { select, subpartitions, codec, local } = spec;
    const open = (targets: readonly Subpartition[], isLocal: boolean): OpenBatch => {
      const encoder = isLocal && codec.copyable === true ? new RecordCopies() : codec.createEncoder();
      const line = isLocal ? this.createLine(targets, encoder) : undefined;
      return { encoder, targets, line, marker: undefined };
    };
    // A broadcast record is encoded once; the subpartitions share the bytes. Copies they could not share.
    this.batches =
      select === 'all'
        ? [open(subpartitions, false)]
        : subpartitions.map((subpartition, i) => open([subpartition], local?.[i] === true));
    this.select = select === 'all' ? () => 0 : select;
    this.line = this.batches.length === 1 ? this.batches[0]?.line : undefined;
  }

  emit(record: unknown): void {
    const batch = this.choose(record);
    const { encoder, line } = batch;
    if (line !== undefined) {
      if (line.credit !== 0) {
        line.credit--;
        line.receive(record);
        return;
      }
      if (line.isOpen) {
        this.pass(line, record);
        return;
      }
    }
    this.append(encoder, record);
    this.spec.meter.writeRecords++;
    const { limits } = this.spec;
    if (encoder.bytes >= limits.batchBytes || encoder.records >= limits.batchRecords) this.send(batch);
    else this.spec.onBuffered();
  }

  /**
   * Sends what has gathered. `force`: also when the queue is full, because a barrier or the end must
   * follow; a task does that at most once between two looks at its outputs.
   */
  flush(force: boolean): void {
    for (const batch of this.batches) {
      if (batch.encoder.records === 0) continue;
      if (force || batch.targets.every((target) => target.available)) this.send(batch);
    }
  }

  deadline(deadlineMs: number): void {
    for (const { line } of this.batches) line?.deadline(deadlineMs);
  }

  get buffered(): boolean {
    return this.batches.some(({ encoder }) => encoder.records > 0);
  }

  broadcast(message: ChannelMessage): void {
    this.flush(true);
    for (const subpartition of this.spec.subpartitions) subpartition.push(message);
  }

  /** Sends a barrier past what is queued. Gives what it passed, and by which subpartition. */
  overtake(barrier: CheckpointBarrier): readonly { readonly subpartition: number; readonly message: RecordsMessage }[] {
    this.flush(true);
    return this.spec.subpartitions.flatMap((target, subpartition) =>
      target.overtake(barrier).map((message) => ({ subpartition, message })),
    );
  }

  get subpartitions(): readonly Subpartition[] {
    return this.spec.subpartitions;
  }

  /** Where barriers may overtake; undefined: nowhere. */
  get inFlight(): OutputEdgeSpec['inFlight'] {
    return this.spec.inFlight;
  }

  /** Event time has come this far: behind every record emitted so far. */
  signal(signal: TimeSignal): void {
    if (this.spec.element === undefined) return;
    this.broadcast({ kind: 'watermark', timestampMs: signal === 'idle' ? Number.NaN : signal });
  }

  /**
   * To one consumer, another one each time, behind what has gathered for it: a marker waits as long as a
   * record would. One that finds another waiting is dropped, as it would say the same.
   */
  mark(marker: LatencyMarker): void {
    this.marked = (this.marked + 1) % this.spec.subpartitions.length;
    const { batches } = this;
    const batch = batches.length === 1 ? batches[0] : batches[this.marked];
    if (batch === undefined) return;
    if (batch.encoder.records > 0) batch.marker ??= marker;
    else this.sendMarker(batch, marker);
  }

  private sendMarker({ targets }: OpenBatch, marker: LatencyMarker): void {
    const target = targets.length === 1 ? targets[0] : targets[this.marked];
    target?.push({ kind: 'latency-marker', marker });
  }

  private choose(record: unknown): OpenBatch {
    try {
      const batch = this.batches[this.select(record)];
      if (batch === undefined) throw new MillraceError('INTERNAL', `edge ${this.spec.edgeId} has no such subpartition`);
      return batch;
    } catch (error) {
      // A key selector that throws, or a key that is none.
      throw userCodeError(this.spec.site, error, record);
    }
  }

  private append(encoder: RecordEncoder | RecordCopies, record: unknown): void {
    try {
      encoder.append(record);
    } catch (error) {
      // A record that is not plain data.
      throw userCodeError(this.spec.site, error, record);
    }
  }

  /** Over the line: the same record, unless its consumer needs one of its own. Now and then it is looked at all the same. */
  private pass(line: DirectLine, record: unknown): void {
    const { looked } = this;
    let copy: unknown;
    try {
      looked.bytes = 0;
      copy = looked.copy(record);
    } catch (error) {
      throw userCodeError(this.spec.site, error, record);
    }
    if (line.needsCopies) {
      line.passed(1, looked.bytes);
      line.receive(copy);
    } else {
      line.grant(looked.bytes);
      line.receive(record);
    }
  }

  private createLine(targets: readonly Subpartition[], encoder: RecordEncoder | RecordCopies): DirectLine {
    const line = new DirectLine();
    const { meter, element } = this.spec;
    line.produce({
      element,
      prepare: () => {
        this.flush(true);
        return encoder.records === 0 && targets.every(({ queued, open }) => queued === 0 && open);
      },
      sent: (records, bytes) => {
        meter.writeRecords += records;
        meter.writeBytes += bytes;
      },
    });
    meter.lines.push(line);
    for (const target of targets) target.line = line;
    return line;
  }

  private send(batch: OpenBatch): void {
    const { encoder, targets } = batch;
    const { records, bytes } = encoder;
    const content = encoder.finish();
    const payload = content instanceof Uint8Array ? content : NO_PAYLOAD;
    const copies = content instanceof Uint8Array ? undefined : content;
    const sentBytes = copies === undefined ? payload.length : bytes;
    const { frameBytesMax } = this.spec.limits;
    // Copies as well: a job must not fail for the first time when its tasks come to run in different slots.
    if (sentBytes > frameBytesMax) {
      throw new MillraceError(
        'TOO_LARGE',
        `operator "${this.spec.site.name}" emitted ${sentBytes} bytes in ${records} records, over the limit of ${frameBytesMax}`,
        { hint: 'Emit large values in pieces, or as references to where they are stored.' },
      );
    }
    this.spec.meter.writeBytes += sentBytes * targets.length;
    const message: ChannelMessage = {
      kind: 'records',
      codec: this.spec.codec.id,
      payload,
      records,
      ...(targets.length > 1 ? { shared: true } : {}),
      ...(copies === undefined ? {} : { copies, copiedBytes: bytes }),
    };
    for (const target of targets) target.push(message);
    if (batch.marker === undefined) return;
    this.sendMarker(batch, batch.marker);
    batch.marker = undefined;
  }
}
