import { stateKeysOf } from '../../../ha/stores/checkpoint-pointers.ts';
import type { Checker } from './checker.ts';

/** 7: nothing that a pointer leads to is ever deleted; at rest nothing lies around that no pointer leads to. */
export const referencesKept: Checker = (world) => {
  const { keys, objects, etcd } = world;
  const byPointer = new Map<string, readonly string[]>();
  const counts = new Map<string, number>();

  const count = (objectKeys: readonly string[], by: number) => {
    for (const key of objectKeys) counts.set(key, (counts.get(key) ?? 0) + by);
  };
  const refer = (pointer: string, value: string | undefined) => {
    count(byPointer.get(pointer) ?? [], -1);
    byPointer.delete(pointer);
    if (value === undefined) return;
    const found = [...value.matchAll(/"objectKey":"([^"]+)"/g)].map(([, key = '']) => key);
    if (pointer.startsWith(keys.allCheckpoints) || pointer.startsWith(keys.allRetained))
      for (const key of [...found]) {
        const bytes = objects.contents.get(key);
        if (bytes !== undefined) found.push(...stateKeysOf(objects.metadataIn(key, bytes)));
      }
    for (const key of found)
      if (!objects.contents.has(key)) world.violated(7, `${pointer} points to ${key}, which is not there`);
    byPointer.set(pointer, found);
    count(found, 1);
  };

  return {
    changed({ set }) {
      for (const change of set.changes) {
        const key = change.kind === 'put' ? change.entry.key : change.key;
        if (key === keys.leader || key.startsWith(keys.replicas)) continue;
        refer(key, change.kind === 'put' ? change.entry.value : undefined);
      }
    },
    objectDeleted(key) {
      if ((counts.get(key) ?? 0) > 0) {
        const pointer = [...byPointer].find(([, found]) => found.includes(key))?.[0];
        world.violated(7, `${key} was deleted, and ${pointer} points to it`);
      }
    },
    atRest(cluster) {
      for (const key of objects.contents.keys())
        if ((counts.get(key) ?? 0) === 0) world.violated(7, `${key} is an orphan that was not swept`);
      for (const { key } of etcd.list(`${keys.clusterId}/`).entries) {
        const [, kind = '', id = ''] = key.split('/');
        if (['checkpoints', 'counters', 'cancels', 'jobs'].includes(kind) && etcd.get(`${keys.results}${id}`))
          world.violated(7, `${key} outlives its job`);
      }
      // Each master has one for its registration, and one to lead with or to campaign with. What nobody renews ends.
      const most = 2 * cluster.masters.size;
      const held = etcd.leases.filter(({ deadlineMs, ttlMs }) => deadlineMs - world.time.nowMs > ttlMs / 2);
      if (held.length > most)
        world.violated(7, `${held.length} leases are held by ${cluster.masters.size} masters: ${JSON.stringify(held)}`);
    },
  };
};
