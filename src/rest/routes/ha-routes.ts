import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { parseInput } from '../input.ts';
import type { RestDeps } from '../ports.ts';

/** Who asks must know what is: a request that was prepared for another leader, or comes twice, changes nothing. */
const handOverSchema = z.strictObject({
  leader: z.string().min(1),
  token: z.string().regex(/^[0-9]{1,30}$/, 'must be the token as GET /ha shows it'),
  to: z.string().min(1).optional(),
});

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

  app.post('/ha/handover', async (request) => {
    const wanted = parseInput('The hand-over', handOverSchema, request.body ?? {});
    await ha.handOver(wanted);
    return { 'handed-over': { leader: wanted.leader, token: wanted.token, to: wanted.to ?? null } };
  });

  /** For load balancers and containers: 200 as long as this process serves. */
  app.get('/health', async () => ({ status: 'ok', role: ha.isLeading() ? 'leader' : 'standby' }));
}
