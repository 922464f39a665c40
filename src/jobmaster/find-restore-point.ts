import { checkRestorable } from '../checkpoint/assign-state.ts';
import type { CheckpointStores, ListedCheckpoint } from '../checkpoint/ports.ts';
import type { JobGraph } from '../contracts/job-graph.ts';
import { asError, type ErrorInfo, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { RestorePoint } from './job-state.ts';

export type RestoreOutcome =
  | {
      readonly kind: 'restored';
      readonly restore: RestorePoint;
      /** Checkpoints that were passed over because the job's `recoveryFallback` says so. */
      readonly passedOver: readonly ErrorInfo[];
    }
  | { readonly kind: 'failed'; readonly error: ErrorInfo; readonly permanent: boolean }
  | { readonly kind: 'fenced'; readonly reason: string };

/**
 * What a deployment starts from: the job's newest completed checkpoint; without any, the savepoint
 * that the user named; without that, nothing.
 *
 * The newest one that cannot be read is never passed over unless the job says so: an older state, or
 * none, would silently undo what sinks have committed already.
 */
export async function findRestorePoint(
  deps: { readonly checkpoints: CheckpointStores; readonly log: Logger },
  graph: JobGraph,
  token: FencingToken,
): Promise<RestoreOutcome> {
  const store = deps.checkpoints.completed(graph.jobId);
  const fallback = graph.config.recoveryFallback;
  const allowNonRestoredState = graph.restoreFrom?.allowNonRestoredState ?? false;
  const passedOver: ErrorInfo[] = [];
  let ids: readonly ListedCheckpoint[];
  let stopped = false;
  try {
    const listed = await store.listIds();
    stopped = listed.some(({ stop }) => stop !== undefined);
    // A savepoint is the user's, who may delete it at any time; and no sink has committed by it.
    ids = listed.filter(({ kind, stop }) => kind === 'CHECKPOINT' || stop !== undefined);
  } catch (error) {
    if (!isUnreadable(error) || fallback !== 'fresh') return failed(error, 'completed checkpoints cannot be listed');
    return { kind: 'restored', restore: { kind: 'fresh' }, passedOver: [toErrorInfo(error)] };
  }
  for (const { checkpointId } of ids.toReversed()) {
    try {
      const checkpoint = await store.read(checkpointId);
      checkRestorable(checkpoint.metadata, graph, { allowNonRestoredState });
      const restore: RestorePoint = { kind: 'checkpoint', checkpoint, own: true, allowNonRestoredState, stopped };
      return { kind: 'restored', restore, passedOver };
    } catch (error) {
      if (!isUnreadable(error) || fallback === 'none')
        return failed(error, `checkpoint ${checkpointId} cannot be read`);
      deps.log.error({ err: asError(error), checkpointId, fallback }, 'unreadable checkpoint passed over');
      passedOver.push(toErrorInfo(error));
      if (fallback === 'fresh') return { kind: 'restored', restore: { kind: 'fresh' }, passedOver };
    }
  }
  const last = passedOver.at(-1);
  if (last !== undefined) {
    const message = `none of ${ids.length} completed checkpoints can be read: ${last.message}`;
    return { kind: 'failed', error: { ...last, message }, permanent: false };
  }
  return graph.restoreFrom === undefined
    ? { kind: 'restored', restore: { kind: 'fresh' }, passedOver }
    : restoreExternal(deps, graph, graph.restoreFrom, token);
}

async function restoreExternal(
  { checkpoints }: { readonly checkpoints: CheckpointStores },
  graph: JobGraph,
  { metadataKey, allowNonRestoredState, claimMode = 'NO_CLAIM' }: NonNullable<JobGraph['restoreFrom']>,
  token: FencingToken,
): Promise<RestoreOutcome> {
  try {
    const checkpoint = await checkpoints.readExternal(metadataKey);
    checkRestorable(checkpoint.metadata, graph, { allowNonRestoredState });
    const own = claimMode === 'CLAIM';
    // Once it is known to fit: a job that cannot start from it must not take it away from its user.
    if (own) await checkpoints.completed(graph.jobId).claim(metadataKey, token);
    const restore: RestorePoint = { kind: 'checkpoint', checkpoint, own, allowNonRestoredState, stopped: false };
    return { kind: 'restored', restore, passedOver: [] };
  } catch (error) {
    const outcome = failed(error, `savepoint ${metadataKey} cannot be restored`);
    // The user named what does not exist or does not fit: waiting would not change that.
    const permanent = isUnreadable(error) || isMillraceError(error, 'CONFLICT');
    return outcome.kind === 'failed' ? { ...outcome, permanent } : outcome;
  }
}

/** The bytes are there and useless, or are gone for good; as opposed to a store that is away. */
function isUnreadable(error: unknown): boolean {
  return (
    isMillraceError(error) &&
    (error.code === 'CORRUPT' ||
      error.code === 'UNSUPPORTED_VERSION' ||
      error.code === 'NOT_FOUND' ||
      error.code === 'INVALID_ARGUMENT')
  );
}

function failed(error: unknown, what: string): RestoreOutcome {
  const info = toErrorInfo(error);
  if (info.code === 'FENCED' || info.code === 'NOT_LEADER') return { kind: 'fenced', reason: info.message };
  return { kind: 'failed', error: { ...info, message: `${what}: ${info.message}` }, permanent: false };
}
