import { z } from 'zod';
import { type LeaderInfo, leaderAddressSchema } from '../../src/contracts/leadership.ts';
import { asFencingToken } from '../../src/kernel/ids.ts';
import type { Entry } from '../coordination/coordination.ts';
import { decodeRecord, encodeRecord, type RecordType } from '../stores/record-codec.ts';

/** The value of the leader key: written once per term, never again. */
const leaderRecordSchema = leaderAddressSchema.extend({
  /** Unique per campaign: tells our own transaction from another's when its answer was lost. */
  campaign: z.string().min(1).max(64),
  /** The token of the leader whose key was stolen on suspicion; absent after an ordinary election. */
  stolenFrom: z.string().max(40).optional(),
});
export type LeaderRecord = z.infer<typeof leaderRecordSchema>;

export const LEADER_RECORD: RecordType<LeaderRecord> = { name: 'leader', version: 1, schema: leaderRecordSchema };

export function encodeLeader(record: LeaderRecord): string {
  return encodeRecord(LEADER_RECORD, record);
}

/** @throws `CORRUPT`, `UNSUPPORTED_VERSION`. */
export function decodeLeader(entry: Entry): LeaderInfo & Pick<LeaderRecord, 'campaign' | 'stolenFrom'> {
  return { ...decodeRecord(LEADER_RECORD, entry), token: asFencingToken(entry.modRevision) };
}
