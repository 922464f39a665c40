import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';

export interface ProxiedRequest {
  readonly method: string;
  readonly url: string;
}

/** What happens to one request; undefined: it passes. */
export type HttpFault =
  | undefined
  /** Answered by the proxy, the server never hears of it. */
  | { readonly kind: 'status'; readonly status: number }
  /** Passes, and its answer's body breaks off after so many bytes. */
  | { readonly kind: 'truncate'; readonly afterBytes: number }
  /** Passes, late. */
  | { readonly kind: 'delay'; readonly delayMs: number };

/** An HTTP proxy that meddles with chosen requests. Headers pass unchanged, so that signatures hold. */
export class HttpFaultProxy implements AsyncDisposable {
  /** Asked for each request. */
  fault: (request: ProxiedRequest) => HttpFault = () => undefined;
  readonly endpoint: string;
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 128 });

  private constructor(
    private readonly server: Server,
    private readonly target: URL,
  ) {
    const { address, port } = server.address() as AddressInfo;
    this.endpoint = `http://${address}:${port}`;
    server.on('request', (incoming: IncomingMessage, outgoing: ServerResponse) => {
      this.serve(incoming, outgoing).catch(() => outgoing.destroy()); // As a server that fails would.
    });
  }

  static async start(target: string, host = '127.0.0.1'): Promise<HttpFaultProxy> {
    const server = createServer();
    server.listen(0, host);
    await once(server, 'listening');
    return new HttpFaultProxy(server, new URL(target));
  }

  async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.server.closeAllConnections();
    this.agent.destroy();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = '', url = '' } = incoming;
    const fault = this.fault({ method, url });
    if (fault?.kind === 'status') {
      incoming.resume();
      await once(incoming, 'end');
      outgoing.writeHead(fault.status).end();
      return;
    }
    if (fault?.kind === 'delay') await wait(fault.delayMs);
    const answer = await this.forward(incoming, { method, url });
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    if (fault?.kind !== 'truncate') {
      answer.pipe(outgoing);
      answer.on('error', () => outgoing.destroy());
      return;
    }
    let left = fault.afterBytes;
    outgoing.flushHeaders();
    for await (const bytes of answer as AsyncIterable<Buffer>) {
      // Sent before more is done: what is still buffered when it is destroyed would never leave.
      await new Promise((resolve) => outgoing.write(bytes.subarray(0, left), resolve));
      left -= bytes.length;
      if (left <= 0) break;
    }
    outgoing.destroy();
  }

  private forward(incoming: IncomingMessage, { method, url }: ProxiedRequest): Promise<IncomingMessage> {
    const { hostname, port } = this.target;
    return new Promise((resolve, reject) => {
      const onward = request(
        { hostname, port, method, path: url, headers: incoming.headers, agent: this.agent },
        resolve,
      );
      onward.on('error', reject);
      incoming.on('error', reject);
      incoming.pipe(onward);
    });
  }
}
