import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * What happens to one request: it passes (`undefined`), is answered by the proxy with a status, or
 * passes while its answer is cut off after so many bytes of the body (0: before it begins).
 */
export type Meddling = { readonly status: number } | { readonly cutAfterBytes: number } | undefined;

/** An HTTP proxy for tests that fails chosen requests. Headers pass unchanged, so signatures hold. */
export class HttpProxy {
  meddle: (request: { readonly method: string; readonly url: string }) => Meddling = () => undefined;

  private constructor(
    private readonly server: Server,
    private readonly target: URL,
  ) {}

  static async start(target: string): Promise<HttpProxy> {
    const server = createServer();
    const proxy = new HttpProxy(server, new URL(target));
    server.on('request', (incoming, outgoing) => proxy.pass(incoming, outgoing));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
    await once(this.server, 'close');
  }

  private pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = '', url = '' } = incoming;
    const meddling = this.meddle({ method, url });
    if (meddling !== undefined && 'status' in meddling) {
      incoming.resume();
      incoming.on('end', () => outgoing.writeHead(meddling.status).end());
      return;
    }
    const { hostname, port } = this.target;
    const onward = request({ hostname, port, method, path: url, headers: incoming.headers }, (answer) => {
      if (meddling === undefined) {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
        return;
      }
      let left = meddling.cutAfterBytes;
      if (left > 0) outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.on('data', (bytes: Buffer) => {
        if (left > 0) outgoing.write(bytes.subarray(0, left));
        left -= bytes.length;
        if (left <= 0) outgoing.destroy();
      });
      answer.on('end', () => outgoing.destroy());
    });
    onward.on('error', () => outgoing.destroy());
    incoming.pipe(onward);
  }
}
