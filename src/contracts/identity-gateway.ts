import { z } from 'zod';
import { type GatewayHandler, method } from './gateway.ts';

/** Who listens here: asked by standbys, so that a stranger on a dead leader's port is not taken for it. */
export const identityGatewaySpec = {
  identify: method(
    z.object({}),
    z.object({ replicaId: z.string().min(1).max(200), incarnation: z.string().min(8).max(64) }),
    500,
    { readOnly: true },
  ),
} as const;

export type IdentityHandler = GatewayHandler<typeof identityGatewaySpec>;

/** Under which name a master serves it. */
export const IDENTITY = 'identity';
