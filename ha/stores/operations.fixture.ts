import type { Operation, TriggerId } from '../../src/contracts/operations.ts';
import { graphOf, type Leader, type World } from './store-world.fixture.ts';
import { end, JOB_ID, submit } from './transitions.fixture.ts';

export const triggerOf = (n: number) => n.toString(16).padStart(32, '0') as TriggerId;

export const savepointInto = (location: string, triggerId = triggerOf(1)): Operation => ({
  triggerId,
  jobId: JOB_ID,
  request: { kind: 'SAVEPOINT', location },
  startedWallMs: 1,
});

/** A folder of the cluster's own for a savepoint. */
export const folderOf = (world: World, name: string) => `${world.keys.allSavepoints}${name}/`;

/** A job that has ended and left a savepoint to its users, and nothing else. */
export const withSavepointOf = async (leader: Leader, world: World, n = 2) => {
  const graph = graphOf(n);
  await submit(graph)(leader);
  const completed = leader.checkpoints.completed(graph.jobId);
  const snapshot = await world.snapshot(graph, 5, { kind: 'SAVEPOINT' });
  const { metadataKey } = await completed.add(snapshot, leader.token, { location: folderOf(world, 'kept') });
  await end(graph, 'FINISHED')(leader);
  await leader.jobResults.cleanUp(graph.jobId, leader.token);
  return metadataKey;
};

export const savepointAt = (world: World) => `${folderOf(world, 'kept')}_metadata`;
