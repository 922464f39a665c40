import type { WatchEvent } from './coordination.ts';
import type { ChangeSet } from './revision-engine.ts';

/** Tells `listener` of the changes of one revision to keys that start with `prefix`. */
export function deliverChanges(set: ChangeSet, prefix: string, listener: (event: WatchEvent) => void): void {
  const { revision } = set;
  for (const change of set.changes) {
    const key = change.kind === 'put' ? change.entry.key : change.key;
    if (!key.startsWith(prefix)) continue;
    listener(
      change.kind === 'put' ? { kind: 'put', entry: change.entry, revision } : { kind: 'delete', key, revision },
    );
  }
}
