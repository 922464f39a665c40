import {
  type Operation,
  type OperationResult,
  type OperationScope,
  type OperationStore,
  operationSchema,
  type TriggerId,
} from '../../src/contracts/operations.ts';
import { MillraceError, NotFoundError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import type { Entry, Guard, Op } from '../coordination/coordination.ts';
import { absent, unchanged } from './fenced-writer.ts';
import { hasWriteId } from './job-graph-store.ts';
import { decodeRecord, encodeRecord, type RecordType } from './record-codec.ts';
import type { StoreDeps } from './store-deps.ts';
import { z } from 'zod';

const operationRecordSchema = operationSchema.extend({ writeId: z.string().min(1).max(64) });
type OperationRecord = z.infer<typeof operationRecordSchema>;
export const OPERATION_RECORD: RecordType<OperationRecord> = {
  name: 'operation',
  version: 1,
  schema: operationRecordSchema,
};

/** Results kept in one scope; the oldest make room for new operations. */
const RESULTS_MAX = 32;
const PENDING_MAX = 32;
const COLLISIONS_MAX = 20;

/**
 * Operations that are answered later.
 *
 * Invariants:
 *   O1. An operation begins in a fenced transaction that finds its job running.
 *   O2. Its result is written once: by the transaction that completes its checkpoint, or by `finish`, each
 *       guarded by the record without a result.
 */
export class HaOperationStore implements OperationStore {
  constructor(private readonly deps: StoreDeps) {}

  async begin(
    operation: Operation,
    token: FencingToken,
  ): Promise<{ readonly outcome: 'created' | 'existing'; readonly operation: Operation }> {
    const { keys, coordination, writer } = this.deps;
    const { jobId, triggerId } = operation;
    const scope = jobId ?? 'disposals';
    const key = keys.operation(scope, triggerId);
    const present = await coordination.get(key);
    if (present !== undefined) return { outcome: 'existing', operation: asOperation(present) };
    const guards: Guard[] = [absent(key)];
    if (jobId !== undefined) {
      const job = await coordination.get(keys.job(jobId));
      if (job === undefined) throw new NotFoundError(`job ${jobId} is not running: it has ended or never was`);
      guards.push(unchanged(job.key, job.modRevision)); // O1
    }
    const writeId = writer.newWriteId();
    const outcome = await writer.commit(token, {
      what: `beginning operation ${triggerId}`,
      guards,
      then: [
        { kind: 'put', key, value: encodeRecord(OPERATION_RECORD, { ...operation, writeId }) },
        ...(await this.makeRoom(scope)),
      ],
      isDone: (seen) => hasWriteId(seen.get(key), writeId),
    });
    if (outcome.kind === 'committed') return { outcome: 'created', operation };
    const other = outcome.seen.get(key);
    if (other !== undefined) return { outcome: 'existing', operation: asOperation(other) };
    throw new NotFoundError(`job ${jobId} is not running: it has ended`);
  }

  async get(scope: OperationScope, triggerId: TriggerId): Promise<Operation | undefined> {
    const entry = await this.deps.coordination.get(this.deps.keys.operation(scope, triggerId));
    return entry === undefined ? undefined : asOperation(entry);
  }

  async pending(scope: OperationScope): Promise<readonly Operation[]> {
    const all = (await this.list(scope)).map((entry) => asOperation(entry));
    return all.filter(({ result }) => result === undefined).sort((a, b) => a.startedWallMs - b.startedWallMs);
  }

  async finish(
    scope: OperationScope,
    triggerId: TriggerId,
    result: OperationResult,
    token: FencingToken,
  ): Promise<OperationResult | undefined> {
    const { keys, coordination, writer } = this.deps;
    let entry = await coordination.get(keys.operation(scope, triggerId));
    for (let collision = 0; collision < COLLISIONS_MAX; collision++) {
      if (entry === undefined) return undefined;
      const operation = asOperation(entry);
      if (operation.result !== undefined) return operation.result; // O2
      const change = finishOps(entry, result, writer.newWriteId());
      const outcome = await writer.commit(token, {
        what: `ending operation ${triggerId}`,
        guards: [change.guard],
        then: [change.op],
        isDone: (seen) => hasWriteId(seen.get(change.guard.key), change.writeId),
      });
      if (outcome.kind === 'committed') return result;
      entry = outcome.seen.get(keys.operation(scope, triggerId));
    }
    throw new MillraceError('CONFLICT', `operation ${triggerId} is contended`);
  }

  /** Room for one more: the oldest results go. */
  private async makeRoom(scope: OperationScope): Promise<readonly Op[]> {
    const entries = (await this.list(scope)).map((entry) => ({ entry, operation: asOperation(entry) }));
    const ended = entries.filter(({ operation }) => operation.result !== undefined);
    if (entries.length - ended.length >= PENDING_MAX)
      throw new MillraceError('CONFLICT', `${PENDING_MAX} operations are in progress already`, {
        hint: 'Wait until some of them have ended.',
      });
    ended.sort((a, b) => a.operation.startedWallMs - b.operation.startedWallMs);
    const beyond = ended.slice(0, Math.max(0, ended.length - RESULTS_MAX + 1));
    return beyond.map(({ entry }) => ({ kind: 'delete', key: entry.key }) as const);
  }

  private async list(scope: OperationScope): Promise<readonly Entry[]> {
    return (await this.deps.coordination.list(this.deps.keys.operationsOf(scope))).entries;
  }
}

/** O2: what writes the result of an operation that has none, as part of any transaction. */
export function finishOps(
  entry: Entry,
  result: OperationResult,
  writeId: string,
): { readonly guard: Guard; readonly op: Op; readonly writeId: string } {
  const record = decodeRecord(OPERATION_RECORD, entry);
  return {
    guard: unchanged(entry.key, entry.modRevision),
    op: { kind: 'put', key: entry.key, value: encodeRecord(OPERATION_RECORD, { ...record, result, writeId }) },
    writeId,
  };
}

export function asOperation(entry: Entry): Operation {
  const { writeId: _, ...operation } = decodeRecord(OPERATION_RECORD, entry);
  return operation;
}
