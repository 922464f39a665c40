import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/**
 * A TCP proxy for tests that can lose answers: requests reach the server, what the server says goes
 * nowhere, and the connection is reset once the server has said something. So the caller learns
 * nothing of what it surely did.
 */
export class LosingProxy {
  private losing: (() => void) | undefined;
  private readonly sockets = new Set<Socket>();
  connections = 0;

  private constructor(
    private readonly server: Server,
    private readonly targetPort: number,
  ) {}

  static async start(target: string): Promise<LosingProxy> {
    const server = createServer();
    const proxy = new LosingProxy(server, Number(new URL(target).port));
    server.on('connection', (client) => proxy.accept(client));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** From now on nothing that the server says passes; resolves once an answer to a call was lost, and lets later ones pass. */
  loseNextAnswer(): Promise<void> {
    return new Promise((done) => {
      this.losing = done;
    });
  }

  /** Resets every connection; new ones may come at once. */
  reset(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    this.server.close();
    this.reset();
    if (this.server.listening) await once(this.server, 'close');
  }

  private accept(client: Socket): void {
    this.connections++;
    const target = connect(this.targetPort, '127.0.0.1');
    for (const socket of [client, target]) {
      this.sockets.add(socket);
      socket.on('error', () => undefined); // Told by the `close` that follows.
      socket.on('close', () => {
        this.sockets.delete(socket);
        client.destroy();
        target.destroy();
      });
    }
    client.pipe(target);
    const frames = new FrameReader();
    target.on('data', (bytes) => {
      const answered = frames.read(bytes).includes(DATA);
      const { losing } = this;
      if (losing === undefined) {
        client.write(bytes);
      } else if (answered) {
        this.losing = undefined;
        client.resetAndDestroy();
        losing();
      }
    });
  }
}

const FRAME_HEADER_BYTES = 9;
/** What HTTP/2 sends of its own (pings, windows, settings) is of other types. */
const DATA = 0;

/** Tells the types of the HTTP/2 frames that begin in each chunk of one direction of a connection. */
class FrameReader {
  private header = Buffer.alloc(0);
  private payloadLeft = 0;

  read(chunk: Buffer): number[] {
    const types: number[] = [];
    for (let rest = chunk; rest.length > 0; ) {
      if (this.payloadLeft > 0) {
        const skipped = Math.min(this.payloadLeft, rest.length);
        this.payloadLeft -= skipped;
        rest = rest.subarray(skipped);
        continue;
      }
      const taken = Math.min(FRAME_HEADER_BYTES - this.header.length, rest.length);
      this.header = Buffer.concat([this.header, rest.subarray(0, taken)]);
      rest = rest.subarray(taken);
      if (this.header.length < FRAME_HEADER_BYTES) break;
      types.push(this.header.readUInt8(3));
      this.payloadLeft = this.header.readUIntBE(0, 3);
      this.header = Buffer.alloc(0);
    }
    return types;
  }
}
