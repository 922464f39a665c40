import type { Checker } from './checker.ts';

/**
 * 1 and 2, in the store: one writer at a time, named by the leader key, with tokens that only grow; and nobody
 * leads any more when the next is elected.
 */
export const storeWrites: Checker = (world) => {
  let lastToken = 0n;
  /** Tokens that a steal has ended: whoever leads under one need not have heard of it. */
  const stolen = new Set<bigint>();
  const { keys } = world;
  return {
    changed({ set, writer, transaction, leaderBefore }) {
      for (const change of set.changes) {
        const key = change.kind === 'put' ? change.entry.key : change.key;
        if (key.startsWith(keys.replicas)) continue;
        if (key === keys.leader) {
          if (change.kind === 'delete') continue;
          if (set.revision <= lastToken) world.violated(1, `token ${set.revision} follows ${lastToken}`);
          lastToken = set.revision;
          // A steal takes leadership from somebody who may still believe in it. An election does not: nobody
          // believes in a lease that has run out.
          if (leaderBefore !== undefined) stolen.add(leaderBefore.modRevision);
          else
            for (const { name, token } of world.believers())
              if (!stolen.has(token))
                world.violated(1, `${name} still leads under ${token} when ${set.revision} is elected`);
          continue;
        }
        if (writer === undefined || transaction === undefined) {
          world.violated(2, `${key} changed without a transaction`);
          continue;
        }
        const leads = leaderBefore?.value.includes(`"incarnation":"incarnation-${writer}"`) ?? false;
        if (!leads) world.violated(2, `${writer} wrote ${key} at ${set.revision} and did not lead`);
        const guarded = transaction.guards.some(
          (guard) => guard.key === keys.leader && guard.modRevision === leaderBefore?.modRevision,
        );
        if (!guarded) world.violated(2, `${writer} wrote ${key} without the guard of its token`);
      }
    },
  };
};
