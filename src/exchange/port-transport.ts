import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { DataAddress } from '../contracts/task.ts';
import { asError, MillraceError } from '../kernel/errors.ts';
import type { Frame } from './frame.ts';
import type { Transport, TransportServer, Wire, WireHandlers } from './wire.ts';

/** The other slots of this process, wherever their threads are. */
export interface Neighbours {
  /** Gives `port` to the neighbour that serves `address`. False when none does; the port is of no use then. */
  handOver(address: DataAddress, port: MessagePort): Promise<boolean>;
  /** From now on, what others hand over for `address` comes here, until the result is called. */
  accept(address: DataAddress, onPort: (port: MessagePort) => void): () => void;
}

/**
 * Frames over a MessagePort to the slots of this process, over another transport to all others. The
 * frames are the same, and so are credits; what falls away is the copy, the checksum and the kernel.
 */
export class PortTransport implements Transport {
  constructor(
    private readonly neighbours: Neighbours,
    private readonly others: Transport,
    /** Under which other slots know this one. */
    private readonly advertisedHost: string,
  ) {}

  async connect(address: DataAddress, attach: (wire: Wire) => WireHandlers, signal: AbortSignal): Promise<Wire> {
    const { port1, port2 } = new MessageChannel();
    let found = false;
    try {
      found = await this.neighbours.handOver(address, port2);
    } finally {
      if (!found) port1.close();
    }
    if (!found) return this.others.connect(address, attach, signal);
    const wire = new PortWire(port1, `${address.host}:${address.port}`);
    if (signal.aborted) {
      port1.close();
      throw new MillraceError('CLOSED', `connecting to ${wire.peer} was stopped`);
    }
    wire.begin(attach);
    return wire;
  }

  async listen(bind: DataAddress, attach: (wire: Wire) => WireHandlers): Promise<TransportServer> {
    const server = await this.others.listen(bind, attach);
    const accepted = new Set<PortWire>();
    const { port } = server.address;
    const stop = this.neighbours.accept({ host: this.advertisedHost, port }, (messagePort) => {
      const wire = new PortWire(messagePort, 'another slot of this process');
      accepted.add(wire);
      messagePort.once('close', () => accepted.delete(wire));
      wire.begin(attach);
    });
    return {
      address: server.address,
      close: async () => {
        stop();
        for (const wire of [...accepted]) wire.destroy(new MillraceError('CLOSED', 'the slot is closing'));
        await server.close();
      },
    };
  }
}

class PortWire implements Wire {
  private closed = false;
  private failure: Error | undefined;

  constructor(
    private readonly port: MessagePort,
    readonly peer: string,
  ) {}

  begin(attach: (wire: Wire) => WireHandlers): void {
    const { port } = this;
    const handlers = attach(this);
    port.on('close', () => {
      this.closed = true;
      handlers.onClosed(this.failure);
    });
    port.on('messageerror', (error) => this.destroy(error));
    // Last, because it starts the port.
    port.on('message', (frame: Frame) => {
      // What was on its way when a handler closed the wire is nobody's any more.
      if (this.closed) return;
      try {
        handlers.onFrame(frame);
      } catch (error) {
        this.destroy(asError(error));
      }
    });
  }

  /** Always true: a port has no limit of its own, and credits bound what is under way. */
  send({ kind, channel, sequence, codec, payload, exclusive }: Frame): boolean {
    if (this.closed) return true;
    // A view of a larger buffer would take all of that along.
    const isWhole = payload.byteLength === payload.buffer.byteLength;
    const own = exclusive === true && isWhole ? payload : new Uint8Array(payload);
    this.port.postMessage({ kind, channel, sequence, codec, payload: own }, [own.buffer as ArrayBuffer]);
    return true;
  }

  destroy(reason: Error): void {
    if (this.closed) return;
    this.closed = true;
    this.failure ??= reason;
    this.port.close();
  }
}

/** Slots that share a thread, as in a mini cluster. */
export class ThreadNeighbours implements Neighbours {
  private readonly accepting = new Map<string, (port: MessagePort) => void>();

  handOver(address: DataAddress, port: MessagePort): Promise<boolean> {
    const onPort = this.accepting.get(keyOf(address));
    onPort?.(port);
    return Promise.resolve(onPort !== undefined);
  }

  accept(address: DataAddress, onPort: (port: MessagePort) => void): () => void {
    const key = keyOf(address);
    this.accepting.set(key, onPort);
    return () => void this.accepting.delete(key);
  }
}

function keyOf({ host, port }: DataAddress): string {
  return `${host}:${port}`;
}
