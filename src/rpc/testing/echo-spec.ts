import { z } from 'zod';
import { method } from '../../contracts/gateway.ts';
import { fencingTokenSchema } from '../../contracts/schemas.ts';

/** A gateway with one method for each way in which a call can go. */
export const echoSpec = {
  echo: method(
    z.object({ value: z.unknown().optional(), items: z.array(z.object({ name: z.string() })).optional() }),
    z.object({ value: z.unknown().optional() }),
    5_000,
  ),
  token: method(z.object({}), z.object({ token: fencingTokenSchema }), 5_000),
  hang: method(z.object({}), z.object({}), 300),
  hangReading: method(z.object({}), z.object({}), 300, { readOnly: true }),
  fail: method(
    z.object({ kind: z.enum(['fenced', 'other', 'wrong-answer']) }),
    z.object({ done: z.boolean().optional() }),
    5_000,
  ),
} as const;
