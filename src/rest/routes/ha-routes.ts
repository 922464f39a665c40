import type { FastifyInstance } from 'fastify';
import type { RestDeps } from '../ports.ts';

/**
 * What a replica says of itself and of the election. Answered locally by every replica, so that the
 * dashboard has something true to show while nobody leads.
 */
export function haRoutes(app: FastifyInstance, { ha, version }: RestDeps): void {
  app.get('/ha', async () => {
    const leader = ha.leader();
    return {
      self: { id: ha.replicaId, role: ha.isLeading() ? 'leader' : 'standby', version },
      leader:
        leader === undefined
          ? null
          : {
              id: leader.replicaId,
              token: leader.token.toString(),
              'rest-url': leader.restUrl,
              'rpc-address': leader.rpcAddress,
              'elected-at': leader.electedWallMs,
            },
      replicas: (await ha.replicas()).map((replica) => ({
        id: replica.id,
        'rest-url': replica.restUrl,
        'rpc-address': replica.rpcAddress,
        'started-at': replica.startedMs,
        role: replica.id === leader?.replicaId ? 'leader' : 'standby',
      })),
      events: ha.events().map((event) => ({
        timestamp: event.timestampMs,
        kind: event.kind,
        replica: event.replicaId ?? null,
        token: event.token ?? null,
        detail: event.detail,
      })),
    };
  });

  /** For load balancers and containers: 200 as long as this process serves. */
  app.get('/health', async () => ({ status: 'ok', role: ha.isLeading() ? 'leader' : 'standby' }));
}
