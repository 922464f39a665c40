import type { FastifyInstance } from 'fastify';
import type { RestDeps } from './ports.ts';

/**
 * Browsers and other origins.
 *
 * The dashboard of one master may read from the others when its own has died: their origins are
 * allowed, and stay so when the dead one is forgotten as a master. Any other page that a user of this network happens to open is not: it can neither read nor,
 * and this is what matters, post a jar and run it. Programs that are no browsers send no Origin.
 */
export function guardOrigins(app: FastifyInstance, { ha }: RestDeps): void {
  const masters = new Set<string>();
  const isMaster = async (origin: string): Promise<boolean> => {
    if (masters.has(origin)) return true;
    const known = (await ha.replicas()).some((replica) => originOf(replica.restUrl) === origin);
    if (known && masters.size < ORIGINS_MAX) masters.add(origin);
    return known;
  };
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers;
    if (origin === undefined || origin === `${request.protocol}://${request.headers.host}`) return;
    if (!(await isMaster(origin))) {
      if (request.method === 'GET' || request.method === 'HEAD') return; // Unreadable without the header below.
      await reply.code(403).send({ errors: [`Requests from pages of ${origin} are refused.`], code: 'FORBIDDEN' });
      return;
    }
    void reply.headers({
      'access-control-allow-origin': origin,
      vary: 'Origin',
      'cross-origin-resource-policy': 'cross-origin',
    });
    if (request.method === 'OPTIONS') {
      await reply
        .code(204)
        .headers({ 'access-control-allow-methods': 'GET, PATCH', 'access-control-max-age': '600' })
        .send();
    }
  });
}

/** Far more than a cluster has masters in the life of one process. */
const ORIGINS_MAX = 1_000;

function originOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).origin : undefined;
}
