import type { Checker } from './checker.ts';

/** 13: nobody's view of who leads goes back to an older leader, and at rest all views agree with the store. */
export const mirrorsConverge: Checker = (world) => {
  const highest = new Map<string, bigint>();
  const now = new Map<string, bigint | undefined>();
  return {
    leaderSeen(process, token) {
      now.set(process, token);
      if (token === undefined) return;
      const before = highest.get(process) ?? 0n;
      if (token < before) world.violated(13, `${process} sees leader ${token} after ${before}`);
      highest.set(process, token);
    },
    atRest(cluster) {
      const leader = world.etcd.get(world.keys.leader)?.modRevision;
      for (const { process } of [...cluster.masters.values(), ...cluster.workers.values()])
        if (!process.dead && now.get(process.name) !== leader)
          world.violated(13, `${process.name} sees leader ${now.get(process.name)}, the store says ${leader}`);
    },
  };
};
