import type { DataAddress, InputChannelDescriptor } from '../../../src/contracts/task.ts';
import type { CheckpointBarrier } from '../../../src/exchange/channel-message.ts';
import { MillraceError, UnavailableError } from '../../../src/kernel/errors.ts';
import type { AttemptId } from '../../../src/kernel/ids.ts';
import type { SimNetwork } from '../sim-network.ts';
import type { SimProcess } from '../sim-process.ts';
import type { SimRecord } from './records.ts';

export type DataMessage =
  | { readonly kind: 'records'; readonly records: readonly SimRecord[] }
  | { readonly kind: 'barrier'; readonly barrier: CheckpointBarrier }
  | { readonly kind: 'end-of-data'; readonly drained: boolean }
  | { readonly kind: 'end-of-stream' };

/** A producer's side of one channel: kept until somebody reads it. */
export class Subpartition {
  /** Sent or kept, and not yet processed: what backpressure goes by. */
  outstanding = 0;
  readonly queue: DataMessage[] = [];
  reader: Channel | undefined;
  failure: Error | undefined;

  push(message: DataMessage): void {
    this.outstanding++;
    if (this.reader === undefined) this.queue.push(message);
    else this.reader.carry(message);
  }

  fail(error: Error): void {
    this.failure = error;
    this.reader?.breakOff(error);
  }
}

/** Where a slot's output can be found. */
export interface DataServer {
  readonly process: SimProcess;
  /** Undefined: not here (yet). */
  find(attemptId: AttemptId, edgeId: string, subpartition: number): Subpartition | undefined;
}

export interface ChannelReader {
  readonly process: SimProcess;
  receive(message: DataMessage): void;
  broken(error: Error): void;
}

const LOOK_AGAIN_MS = 50;
/** Connecting and waiting for the producer's task may take this long. */
const CONNECT_MS = 3_000;
/** A connection that is cut this long breaks. */
const BREAKS_AFTER_MS = 1_500;

/** Slot to slot, in order, over the simulated network. */
export class DataPlane {
  private readonly servers = new Map<string, DataServer>();
  private ports = 20_000;

  constructor(private readonly network: SimNetwork) {}

  serve(host: string, port: number, server: DataServer): DataAddress {
    const address = { host, port: port === 0 ? ++this.ports : port };
    this.servers.set(`${host}:${address.port}`, server);
    return address;
  }

  stop(address: DataAddress, server: DataServer): void {
    const key = `${address.host}:${address.port}`;
    if (this.servers.get(key) === server) this.servers.delete(key);
  }

  server({ host, port }: DataAddress): DataServer | undefined {
    return this.servers.get(`${host}:${port}`);
  }

  connect(reader: ChannelReader, descriptor: InputChannelDescriptor): Channel {
    return new Channel(this, this.network, reader, descriptor);
  }
}

/** A consumer's side of one channel. Messages arrive in their order, or the channel breaks, once. */
export class Channel {
  private state: 'connecting' | 'open' | 'ended' = 'connecting';
  private source: Subpartition | undefined;
  private producer: SimProcess | undefined;
  /** No message arrives before the one that was sent before it. */
  private lastArrivalMs = 0;
  private readonly held: DataMessage[] = [];
  private readonly stops: (() => void)[] = [];

  constructor(
    private readonly plane: DataPlane,
    private readonly network: SimNetwork,
    private readonly reader: ChannelReader,
    private readonly descriptor: InputChannelDescriptor,
  ) {
    this.tryConnect(network.time.nowMs + CONNECT_MS);
    this.stops.push(network.onCutChanged(() => this.cutChanged()));
  }

  /** The consumer has processed a message. */
  processed(): void {
    if (this.source !== undefined) this.source.outstanding--;
  }

  close(): void {
    this.end();
  }

  carry(message: DataMessage): void {
    if (this.held.length > 0 || this.isCut()) {
      this.held.push(message);
      return;
    }
    const { time } = this.network;
    const latencyMs = this.network.latencyMs(this.host, this.reader.process.host);
    this.lastArrivalMs = Math.max(this.lastArrivalMs, time.nowMs + latencyMs);
    time.at(this.lastArrivalMs, () =>
      this.reader.process.enter(() => {
        if (this.state === 'open') this.reader.receive(message);
      }),
    );
  }

  breakOff(error: Error): void {
    if (this.state === 'ended') return;
    this.end();
    const latencyMs = this.network.latencyMs(this.host, this.reader.process.host);
    this.network.time.after(latencyMs, () => this.reader.process.enter(() => this.reader.broken(error)));
  }

  private get host(): string {
    return this.descriptor.producerAddress.host;
  }

  private tryConnect(deadlineMs: number): void {
    const { time } = this.network;
    time.after(this.network.latencyMs(this.reader.process.host, this.host), () => {
      if (this.state !== 'connecting' || this.reader.process.dead) return;
      const { producerAttempt, edgeId, subpartition, producerAddress } = this.descriptor;
      const server = this.plane.server(producerAddress);
      const reached = server !== undefined && !server.process.dead && !this.isCut();
      const found = reached ? server.find(producerAttempt, edgeId, subpartition) : undefined;
      if (found !== undefined) this.attach(found, server?.process as SimProcess);
      else if (time.nowMs < deadlineMs) time.after(LOOK_AGAIN_MS, () => this.tryConnect(deadlineMs));
      else this.breakOff(new UnavailableError(`no connection to ${producerAttempt} at ${this.host}`));
    });
  }

  private attach(source: Subpartition, producer: SimProcess): void {
    if (source.failure !== undefined) {
      this.breakOff(source.failure);
      return;
    }
    this.state = 'open';
    this.source = source;
    this.producer = producer;
    source.reader = this;
    const broke = () => this.breakOff(new UnavailableError(`the connection to ${producer.name} broke`));
    this.stops.push(
      producer.onDeath(() => {
        if (this.isCut()) this.network.time.after(BREAKS_AFTER_MS, broke);
        else broke();
      }),
    );
    this.stops.push(this.reader.process.onDeath(() => this.end()));
    for (const message of source.queue.splice(0)) this.carry(message);
  }

  private cutChanged(): void {
    if (this.state !== 'open') return;
    if (!this.isCut()) {
      for (const message of this.held.splice(0)) this.carry(message);
      return;
    }
    this.network.time.after(BREAKS_AFTER_MS, () => {
      if (this.state !== 'open' || !this.isCut()) return;
      this.breakOff(new MillraceError('UNAVAILABLE', `${this.host} does not answer`));
    });
  }

  private isCut(): boolean {
    const to = this.reader.process.host;
    return this.network.isCut(this.host, to) || this.network.isCut(to, this.host);
  }

  private end(): void {
    this.state = 'ended';
    if (this.source?.reader === this) this.source.reader = undefined;
    for (const stop of this.stops.splice(0)) stop();
  }

  /** For readers of a trace. */
  get peer(): string {
    return this.producer?.name ?? 'nobody yet';
  }
}
