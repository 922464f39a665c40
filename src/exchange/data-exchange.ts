import type { DataAddress } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { AttemptId, DeploymentId, JobId } from '../kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { ConsumerConnection } from './consumer-connection.ts';
import type { ExchangeOptions } from './exchange-options.ts';
import type { InputChannel, InputChannelListener, InputRequest } from './input-channel.ts';
import { LocalInputChannel } from './local-channel.ts';
import { ProducerEndpoint } from './producer-endpoint.ts';
import { Subpartition, type SubpartitionWriterListener } from './subpartition.ts';
import { type SubpartitionId, SubpartitionRegistry } from './subpartition-registry.ts';
import type { Transport, TransportServer, Wire } from './wire.ts';

export interface DataExchangeDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly transport: Transport;
}

/**
 * One slot's part in the network stack: serves its tasks' output and fetches their input, over one
 * connection per pair of slots, or directly when both ends are in this slot.
 */
export class DataExchange implements Closeable {
  private readonly registry: SubpartitionRegistry;
  private readonly background: BackgroundTasks;
  private readonly connections = new Map<string, Promise<ConsumerConnection>>();
  private readonly closing = new AbortController();
  private server: TransportServer | undefined;
  private closed: Promise<void> | undefined;

  private constructor(
    private readonly deps: DataExchangeDeps,
    private readonly options: ExchangeOptions,
  ) {
    this.registry = new SubpartitionRegistry(deps.clock);
    this.background = new BackgroundTasks(deps.log);
  }

  /** Resolves once consumers can connect. */
  static async start(deps: DataExchangeDeps, options: ExchangeOptions, bind: DataAddress): Promise<DataExchange> {
    const exchange = new DataExchange(deps, options);
    const { clock, log } = deps;
    const { registry, background } = exchange;
    exchange.server = await deps.transport.listen(
      bind,
      (wire) => new ProducerEndpoint({ clock, log, registry, background }, options, wire),
    );
    return exchange;
  }

  /** What the server is bound to. */
  get address(): DataAddress {
    if (this.server === undefined) throw new MillraceError('CLOSED', 'the data server is not running');
    return this.server.address;
  }

  /** Consumers that wait for a task of this slot which is not there yet. */
  get waitingConsumers(): number {
    return this.registry.waiting;
  }

  /** From now on deployments before this one are not served, nor are these attempts. */
  begin(jobId: JobId, oldestLive: DeploymentId, replaced: ReadonlySet<AttemptId> = new Set()): void {
    this.registry.begin(jobId, oldestLive, replaced);
  }

  createOutput(id: SubpartitionId, writer: SubpartitionWriterListener): Subpartition {
    const description = `subpartition ${id.subpartition} of edge ${id.edgeId} of attempt ${id.attemptId}`;
    const subpartition = new Subpartition(description, this.options.queuedMessages, writer);
    this.registry.add(id, subpartition);
    return subpartition;
  }

  /** `address` undefined: the producer is in this slot. Resolves once the producer is there. */
  async openInput(
    request: InputRequest,
    address: DataAddress | undefined,
    listener: InputChannelListener,
    signal: AbortSignal,
  ): Promise<InputChannel> {
    if (address === undefined) return this.openLocal(request, listener, signal);
    const connection = await this.connectionTo(address, signal);
    return connection.open(request, listener, signal);
  }

  close(): Promise<void> {
    this.closed ??= this.closeAll();
    return this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async openLocal(
    request: InputRequest,
    listener: InputChannelListener,
    signal: AbortSignal,
  ): Promise<InputChannel> {
    const id = {
      jobId: request.jobId as JobId,
      deployment: request.deployment as DeploymentId,
      attemptId: request.producerAttempt as AttemptId,
      edgeId: request.edgeId,
      subpartition: request.subpartition,
    };
    const subpartition = await this.registry.find(id, this.options.producerWaitMs, signal);
    const description = `producer subtask ${request.producerSubtask} of edge ${request.edgeId} in the same slot`;
    return new LocalInputChannel(description, subpartition, listener);
  }

  /** Shared by all channels to one peer, so it is not bound to the signal of the first that wanted it. */
  private async connectionTo(address: DataAddress, signal: AbortSignal): Promise<ConsumerConnection> {
    const key = `${address.host}:${address.port}`;
    for (;;) {
      const connection = await abortable(this.connections.get(key) ?? this.connect(address, key), signal);
      // Unusable when it was lost between being looked up and being used; it has been forgotten then.
      if (connection.usable) return connection;
    }
  }

  private connect(address: DataAddress, key: string): Promise<ConsumerConnection> {
    const forget = () => {
      // Never the successor's entry.
      if (this.connections.get(key) === connecting) this.connections.delete(key);
    };
    const connecting = this.handshake(address, forget).catch((error: unknown) => {
      forget();
      throw error;
    });
    this.connections.set(key, connecting);
    return connecting;
  }

  private async handshake(address: DataAddress, onGone: () => void): Promise<ConsumerConnection> {
    let connection: ConsumerConnection | undefined;
    const attach = (wire: Wire) => {
      connection = new ConsumerConnection(this.deps.clock, this.options, wire, onGone);
      return connection;
    };
    await this.deps.transport.connect(address, attach, this.closing.signal);
    if (connection === undefined) throw new MillraceError('INTERNAL', 'a transport connected without attaching');
    return connection;
  }

  private async closeAll(): Promise<void> {
    this.closing.abort();
    this.registry.close();
    const reason = new MillraceError('CLOSED', 'the slot is closing');
    for (const connecting of [...this.connections.values()]) {
      // A connection that was never made has nothing to close; its openers have the error.
      await connecting.then(
        (connection) => connection.destroy(reason),
        () => undefined,
      );
    }
    await this.server?.close();
    await this.background.drain();
  }
}

/** The promise goes on for others; only this waiter leaves. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(new MillraceError('CLOSED', 'the task was stopped while it connected'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
