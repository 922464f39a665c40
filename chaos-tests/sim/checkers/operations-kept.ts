import { stateKeysOf } from '../../../ha/stores/checkpoint-pointers.ts';
import type { OperationView } from '../../../src/contracts/dispatcher-gateway.ts';
import type { Operation } from '../../../src/contracts/operations.ts';
import { asError } from '../../../src/kernel/errors.ts';
import type { JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

/**
 * 12: a savepoint, checkpoint or stop that was answered is on record from then on; it has one result, whoever
 * looks and whoever leads, and a job stops once. 5: a savepoint that is answered is there, whole, until its
 * user deletes it (nobody does here). 11: a refusal leaves nothing behind.
 */
export const operationsKept: Checker = (world) => {
  const { keys, etcd, objects } = world;
  const results = new Map<string, string>();
  const asked = new Map<string, number>();
  const received = new Map<string, number>();
  const told = new Map<string, OperationView>();
  const stops = new Map<string, string>();

  const checkSavepoint = (location: string) => {
    const folder = `${location.slice(location.indexOf(':') + 1)}/`;
    const metadataKey = `${folder}_metadata`;
    const bytes = objects.contents.get(metadataKey);
    if (bytes === undefined) return world.violated(5, `savepoint ${location} was answered and is not there`);
    try {
      for (const key of stateKeysOf(objects.metadataIn(metadataKey, bytes)))
        if (!objects.contents.has(key)) world.violated(5, `savepoint ${location} lacks ${key}`);
        else if (!key.startsWith(folder)) world.violated(5, `savepoint ${location} refers to ${key} outside of it`);
    } catch (error) {
      world.violated(5, `savepoint ${location}: ${asError(error).message}`);
    }
    const pointers = [...etcd.list(keys.allCheckpoints).entries, ...etcd.list(keys.allRetained).entries];
    if (!pointers.some(({ value }) => value.includes(`"objectKey":"${metadataKey}"`)))
      world.violated(7, `savepoint ${location} was answered, and nothing points to it`);
  };

  return {
    changed({ set }) {
      for (const change of set.changes) {
        const key = change.kind === 'put' ? change.entry.key : change.key;
        if (!key.startsWith(keys.operations)) continue;
        if (change.kind === 'delete') {
          world.violated(12, `operation ${key} was forgotten`);
          continue;
        }
        const { result, request, jobId } = JSON.parse(change.entry.value) as Operation;
        const before = results.get(key);
        const now = result === undefined ? undefined : JSON.stringify(result);
        if (before !== undefined && before !== now)
          world.violated(12, `operation ${key} had the result ${before}, and now ${now}`);
        if (now !== undefined) results.set(key, now);
        if (result?.kind !== 'SUCCESS' || request.kind !== 'SAVEPOINT' || request.stop === undefined) continue;
        const other = stops.get(jobId ?? '');
        if (other !== undefined && other !== key)
          world.violated(12, `job ${jobId} stops with ${other} and with ${key}`);
        stops.set(jobId ?? '', key);
      }
    },
    operationAsked(_jobId, triggerId) {
      asked.set(triggerId, (asked.get(triggerId) ?? 0) + 1);
    },
    operationReceived(triggerId) {
      received.set(triggerId, (received.get(triggerId) ?? 0) + 1);
    },
    operationAnswered(jobId, triggerId, answered) {
      const entry = etcd.get(keys.operation(jobId, triggerId));
      if (answered === 'begun') {
        if (entry === undefined) world.violated(12, `operation ${triggerId} was answered and is not on record`);
        return;
      }
      const definite = ['CONFLICT', 'NOT_FOUND', 'UNAVAILABLE', 'FENCED'].includes(answered.code);
      // A refusal speaks of one request: of a doubled one the other copy may have been taken.
      const once = asked.get(triggerId) === 1 && (received.get(triggerId) ?? 0) <= 1;
      if (definite && once && entry !== undefined)
        world.violated(11, `operation ${triggerId} was refused with ${answered.code} and is on record`);
    },
    operationSeen(jobId, triggerId, view) {
      const before = told.get(triggerId);
      if (before?.status === 'COMPLETED' && JSON.stringify(before) !== JSON.stringify(view))
        world.violated(12, `operation ${triggerId} was ${JSON.stringify(before)}, and now ${JSON.stringify(view)}`);
      told.set(triggerId, view);
      if (view.status !== 'COMPLETED') return;
      if (view.location !== undefined) checkSavepoint(view.location);
      const stored = results.get(keys.operation(jobId, triggerId));
      if (view.failure === undefined && stored?.includes('"SUCCESS"') !== true)
        world.violated(12, `operation ${triggerId} is told as a success, on record is ${stored}`);
    },
    atRest() {
      // What another job has claimed is that job's from then on.
      const claimed = world.config.jobs.some(({ graph }) => graph.restoreFrom?.claimMode === 'CLAIM');
      for (const view of told.values())
        if (view.status === 'COMPLETED' && view.location !== undefined && !claimed) checkSavepoint(view.location);
      for (const [jobId, key] of stops) {
        const result = etcd.get(keys.result(jobId as JobId))?.value ?? 'no result';
        if (!/"status":"(FINISHED|CANCELED)"/.test(result))
          world.violated(12, `job ${jobId} stopped with ${key} and has ${result}`);
      }
    },
  };
};
