import replyFrom from '@fastify/reply-from';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { NotLeaderError, UnavailableError } from '../kernel/errors.ts';
import { toHttpError } from './http-error.ts';
import type { RestDeps } from './ports.ts';

const FORWARDED = 'x-millrace-forwarded-by';

/**
 * A standby answers REST by asking the leader, so that any master's address will do.
 *
 * A request is forwarded at most once: if the addressee does not lead either, its 503 goes back to the
 * client, who asks again. Bodies are streamed, not held. Nothing is repeated here: only the client
 * knows whether its request may be sent twice.
 */
export async function forwardToLeader(
  app: FastifyInstance,
  { ha }: RestDeps,
  isLocal: (path: string) => boolean,
): Promise<void> {
  await app.register(replyFrom, {
    disableRequestLogging: true,
    undici: { connections: 32, headersTimeout: 60_000, bodyTimeout: 120_000, connect: { timeout: 1_000 } },
  });

  app.addHook('onRequest', async (request, reply) => {
    if (isLocal(pathOf(request)) || ha.isLeading()) return;
    const leader = ha.leader();
    if (leader === undefined || leader.replicaId === ha.replicaId || request.headers[FORWARDED] !== undefined) {
      throw new NotLeaderError('No leader is known right now: an election is under way.', {
        hint: 'Repeat the request in a second.',
      });
    }
    await forward(request, reply, leader.restUrl, ha.replicaId);
    return reply;
  });
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?', 1)[0] ?? request.url;
}

async function forward(
  request: FastifyRequest,
  reply: FastifyReply,
  leaderUrl: string,
  replicaId: string,
): Promise<void> {
  // The hook runs before parsing: the raw stream is handed on as the body.
  if (request.method !== 'GET' && request.method !== 'HEAD') request.body = request.raw;
  await reply.from(`${leaderUrl}${request.url}`, {
    rewriteRequestHeaders: (_request, headers) => ({ ...headers, [FORWARDED]: replicaId }),
    retryDelay: () => null,
    onError: (answer, { error }) => {
      const http = toHttpError(
        new UnavailableError(
          `The leader at ${leaderUrl} does not answer (${error.message}); an election may be under way.`,
          {
            hint: 'Repeat the request in a second.',
          },
        ),
      );
      void answer.code(http.status).headers(http.headers).send(http.body);
    },
  });
}
