import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { EtcdCluster } from './etcd-cluster.ts';
import type { Rgw, S3Access } from './rgw.ts';

/** What a test is told of the shared etcd. */
export interface SharedEtcd {
  readonly endpoints: readonly string[];
}

export interface SharedS3 extends S3Access {
  /** New and empty, for the asking test alone. */
  readonly bucket: string;
}

/**
 * Starts servers when they are first asked for, once, for many test processes.
 *
 * Lives in the process that outlasts all test files and is asked over HTTP on the loopback address,
 * so that no test file owns what others use. Tests that hurt a server start one of their own.
 */
export class SharedInfra {
  private etcd: Promise<EtcdCluster> | undefined;
  private s3: Promise<Rgw> | undefined;

  private constructor(private readonly server: Server) {}

  static async start(): Promise<SharedInfra> {
    const server = createServer();
    const infra = new SharedInfra(server);
    server.on('request', (request, response) => {
      infra.answer(request.url ?? '').then(
        (body) => response.end(JSON.stringify(body)),
        (error: unknown) => {
          response.statusCode = 500;
          response.end(error instanceof Error ? error.stack : String(error));
        },
      );
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return infra;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.close();
    this.server.closeAllConnections();
    // One that failed to start has cleaned up after itself and told those who asked.
    const started = await Promise.allSettled([this.etcd, this.s3]);
    for (const one of started) if (one.status === 'fulfilled') await one.value?.close();
  }

  private async answer(path: string): Promise<SharedEtcd | SharedS3> {
    switch (path) {
      case '/etcd':
        this.etcd ??= EtcdCluster.start();
        return { endpoints: (await this.etcd).endpoints };
      case '/s3': {
        // Loaded only when needed: the S3 SDK takes seconds.
        this.s3 ??= import('./rgw.ts').then(({ Rgw }) => Rgw.start());
        const rgw = await this.s3;
        return { ...rgw.access, bucket: await rgw.createBucket() };
      }
      default:
        throw new Error(`unknown shared server: ${path}`);
    }
  }
}
