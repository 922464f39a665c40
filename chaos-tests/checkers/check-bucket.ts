import type { StoreContents } from './check-stores.ts';

/**
 * Records that name an object which is not there. The keys must have been read before the objects; still, an
 * object may have gone together with its record in between, so only what is found twice is a finding.
 */
export function danglingPointers({ keys, objects }: StoreContents): string[] {
  const there = new Set(objects);
  const found: string[] = [];
  for (const [key, value] of keys) {
    for (const [, objectKey = ''] of value.matchAll(/"objectKey":"([^"]+)"/g)) {
      // Keys of objects begin with the cluster's name, which the inspector has taken away.
      const name = objectKey.slice(objectKey.indexOf('/') + 1);
      if (!there.has(name)) found.push(`${key} points to ${name}, which is not there`);
    }
  }
  return found;
}
