import { z } from 'zod';

/** How records of an edge choose their target subtask. */
export const partitionerSchema = z.enum(['FORWARD', 'HASH', 'REBALANCE', 'RESCALE', 'BROADCAST', 'GLOBAL', 'SHUFFLE']);
export type Partitioner = z.infer<typeof partitionerSchema>;
