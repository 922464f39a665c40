import { existsSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import helmet from '@fastify/helmet';
import multipart from '@fastify/multipart';
import fastifyStatic from '@fastify/static';
import Fastify, { type FastifyInstance } from 'fastify';
import { asError, MillraceError, NotFoundError } from '../kernel/errors.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import { guardOrigins } from './cross-origin.ts';
import { forwardToLeader } from './forward-to-leader.ts';
import { toHttpError } from './http-error.ts';
import type { RestDeps, RestOptions } from './ports.ts';
import { clusterRoutes } from './routes/cluster-routes.ts';
import { haRoutes } from './routes/ha-routes.ts';
import { jarRoutes } from './routes/jar-routes.ts';
import { jobRoutes } from './routes/job-routes.ts';
import { metricRoutes } from './routes/metric-routes.ts';
import { savepointRoutes } from './routes/savepoint-routes.ts';

/**
 * REST and the dashboard of one master. Paths are Flink's, with and without `/v1`.
 */
export class RestServer implements Closeable {
  private constructor(
    private readonly app: FastifyInstance,
    /** The port that is really listened on. */
    readonly port: number,
  ) {}

  static async start(deps: RestDeps, options: RestOptions): Promise<RestServer> {
    const app = Fastify({
      // Requests are logged by the failing ones only; the product's own log says what changed.
      logger: false,
      bodyLimit: Math.min(options.maxContentBytes, 8 * 1024 * 1024),
      forceCloseConnections: true,
      routerOptions: { maxParamLength: 512, ignoreTrailingSlash: true },
    });
    await register(app, deps, options);
    await listen(app, options);
    const { port } = app.server.address() as AddressInfo;
    deps.log.info({ host: options.host, port }, 'rest listening');
    return new RestServer(app, port);
  }

  async close(): Promise<void> {
    await this.app.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function listen(app: FastifyInstance, { host, port }: RestOptions): Promise<void> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    throw new MillraceError('CONFIGURATION', `cannot listen for REST on ${host}:${port}: ${asError(error).message}`, {
      hint: 'Is the port taken, or the host not an address of this machine? See rest.port and rest.bind-address.',
      cause: error,
    });
  }
}

async function register(app: FastifyInstance, deps: RestDeps, options: RestOptions): Promise<void> {
  app.setErrorHandler((error, request, reply) => {
    const http = toHttpError(error);
    if (http.status >= 500 && http.status !== 503) {
      deps.log.error({ err: asError(error), method: request.method, path: request.url }, 'request failed');
    }
    return reply.code(http.status).headers(http.headers).send(http.body);
  });
  app.setNotFoundHandler((request) => {
    throw new NotFoundError(`There is nothing at ${request.method} ${request.url}.`);
  });
  await app.register(helmet, {
    // The dashboard is served over plain HTTP on private networks, where an upgrade would break it.
    // Its script reads from the other masters when this one is gone, hence `connect-src`.
    contentSecurityPolicy: {
      directives: { upgradeInsecureRequests: null, connectSrc: ["'self'", 'http:', 'https:'] },
    },
    strictTransportSecurity: false,
  });
  guardOrigins(app, deps);
  // An empty body with a JSON content type is what many clients send with POST.
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => {
    try {
      done(null, body === '' ? undefined : JSON.parse(body as string));
    } catch (error) {
      done(Object.assign(new Error(`The body is not valid JSON: ${asError(error).message}`), { statusCode: 400 }));
    }
  });
  await app.register(multipart, {
    limits: {
      fileSize: options.maxContentBytes,
      files: 1,
      fields: 20,
      fieldSize: 64 * 1024,
      headerPairs: 100,
      parts: 25,
    },
  });
  const webFiles = options.webRoot !== undefined && existsSync(options.webRoot);
  await forwardToLeader(app, deps, (path) => LOCAL.test(path) || (webFiles && !isApi(path)));

  for (const prefix of ['', '/v1']) {
    await app.register(
      async (scope) => {
        haRoutes(scope, deps);
        clusterRoutes(scope, deps);
        jobRoutes(scope, deps);
        metricRoutes(scope, deps);
        savepointRoutes(scope, deps);
        jarRoutes(scope, deps, options);
        configRoute(scope, deps);
      },
      { prefix },
    );
  }
  if (webFiles) await app.register(fastifyStatic, { root: options.webRoot ?? '', index: 'index.html' });
}

/** Answered by every replica for itself. */
const LOCAL = /^(\/v1)?\/(ha|health|config)\/?$/;

function isApi(path: string): boolean {
  return /^(\/v1)?\/(overview|jobs|jars|taskmanagers|jobmanager|cluster|savepoint-disposal|ha\/handover)(\/|$)/.test(
    path,
  );
}

function configRoute(app: FastifyInstance, { version }: RestDeps): void {
  app.get('/config', async () => ({
    'refresh-interval': 1_000,
    'timezone-name': Intl.DateTimeFormat().resolvedOptions().timeZone,
    'timezone-offset': -new Date().getTimezoneOffset() * 60_000,
    'flink-version': version,
    'flink-revision': 'millrace',
    features: { 'web-submit': true, 'web-cancel': true, 'web-rescale': false, 'web-history': false },
  }));
}
