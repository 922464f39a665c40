import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/**
 * A TCP proxy for tests that can lose answers: requests reach the server, what the server says goes
 * nowhere, and the connection is reset once the server has said something. So the caller learns
 * nothing of what it surely did.
 */
export class LosingProxy {
  private losing: { readonly minBytes: number; readonly done: () => void } | undefined;
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

  /**
   * From now on answers are lost; resolves once one of at least `minBytes` was (what HTTP/2 sends of
   * its own, pings and window updates, is smaller), and lets later ones pass.
   */
  loseNextAnswer(minBytes = 64): Promise<void> {
    return new Promise((done) => {
      this.losing = { minBytes, done };
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
    target.on('data', (bytes) => {
      const { losing } = this;
      if (losing === undefined) {
        client.write(bytes);
      } else if (bytes.length >= losing.minBytes) {
        this.losing = undefined;
        client.resetAndDestroy();
        losing.done();
      }
    });
  }
}
