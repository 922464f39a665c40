import type { CheckpointMetadata } from '../../../src/contracts/checkpoint.ts';
import type { OperatorSnapshot, StateHandle } from '../../../src/contracts/state-handles.ts';
import type { CheckpointAck } from '../../../src/contracts/task.ts';
import { asError } from '../../../src/kernel/errors.ts';
import { compareDeployments, type DeploymentId, type FencingToken, type JobId } from '../../../src/kernel/ids.ts';
import type { Checker } from './checker.ts';

interface PointerValue {
  readonly kind: 'CHECKPOINT' | 'SAVEPOINT';
  readonly stop?: string;
  /** It was another job's. */
  readonly claimed?: boolean;
  readonly metadata: { readonly objectKey: string; readonly digest: string };
}

/**
 * 5: a completed checkpoint holds, for every subtask, exactly what its attempt acknowledged for it, and
 * all its objects are there with their digests.
 * 6: ids rise, each is reserved before it is used and used once; a deployment starts from the newest.
 */
export const completedCheckpoints: Checker = (world) => {
  const { keys, objects, etcd } = world;
  const graphs = new Map(world.config.jobs.map(({ graph }) => [graph.jobId as string, graph]));
  const acks = new Map<string, CheckpointAck>();
  const newest = new Map<string, number>();
  /** Jobs that have stopped with a savepoint. */
  const stopped = new Set<string>();
  /** By subtask: what it said in its final checkpoints, those that it took at the end of its input. */
  const last = new Map<string, CheckpointAck[]>();
  /** Which leader used an id. One leader may use it for several deployments: regions begin again by themselves. */
  const triggered = new Map<string, FencingToken>();
  /** The newest deployment of each subtask. */
  const newestOf = new Map<string, DeploymentId>();

  const completed = (jobId: string, id: number, value: string) => {
    const { kind, stop, claimed, metadata: pointer } = JSON.parse(value) as PointerValue;
    // A savepoint is the user's: it is in no order, and nothing starts from it but what a user starts.
    if (kind === 'CHECKPOINT' || stop !== undefined) {
      if (id <= (newest.get(jobId) ?? 0))
        world.violated(6, `checkpoint ${id} of ${jobId} follows ${newest.get(jobId)}`);
      newest.set(jobId, Math.max(id, newest.get(jobId) ?? 0));
    }
    if (stop !== undefined) stopped.add(jobId);
    const bytes = objects.contents.get(pointer.objectKey);
    if (bytes === undefined || objects.digest(bytes) !== pointer.digest) {
      world.violated(
        5,
        `the metadata of checkpoint ${id} of ${jobId} is ${bytes === undefined ? 'missing' : 'damaged'}`,
      );
      return;
    }
    let metadata: CheckpointMetadata;
    try {
      metadata = objects.metadataIn(pointer.objectKey, bytes);
    } catch (error) {
      world.violated(5, `the metadata of checkpoint ${id} of ${jobId}: ${asError(error).message}`);
      return;
    }
    for (const operator of metadata.operators)
      for (const handle of operator.subtasks.flatMap(handlesOf)) checkObject(jobId, id, handle);
    if (claimed !== true) checkAcks(jobId, metadata);
  };

  const checkObject = (jobId: string, id: number, handle: StateHandle) => {
    if (handle.kind !== 'object') return;
    const bytes = objects.contents.get(handle.key);
    if (bytes === undefined) world.violated(5, `state ${handle.key} of checkpoint ${id} of ${jobId} is missing`);
    else if (objects.digest(bytes) !== handle.digest)
      world.violated(5, `state ${handle.key} of checkpoint ${id} is damaged`);
  };

  const checkAcks = (jobId: string, metadata: CheckpointMetadata) => {
    const { checkpointId: id } = metadata;
    for (const vertex of graphs.get(jobId)?.vertices ?? [])
      for (let i = 0; i < vertex.parallelism; i++) {
        const subtask = `${jobId}/${vertex.id}/${i}`;
        const ack = acks.get(`${subtask}/${id}`);
        // Without an answer it had finished, and what it left at the end of its input stands for it: in the deployment that
        // the checkpoint names, which a leader may have adopted although a newer one began and was lost.
        const by = metadata.taskDeployments?.[vertex.id]?.[i] ?? metadata.deployment;
        const said = ack === undefined ? (last.get(`${subtask}/${by}`) ?? []) : [ack];
        // A savepoint has copies of what finished tasks left elsewhere; when a job has stopped with it they are all there is.
        const copied = metadata.kind === 'SAVEPOINT' || stopped.has(jobId);
        const name = copied && ack === undefined ? 'digest' : 'key';
        for (const operator of vertex.operators) {
          const held = render(metadata.operators.find((one) => one.operatorId === operator.id)?.subtasks[i], name);
          const options = said.map(({ operators }) =>
            render(
              operators.find((one) => one.operatorId === operator.id),
              name,
            ),
          );
          if (!options.includes(held))
            world.violated(
              5,
              `checkpoint ${id} of ${jobId} holds "${held}" for ${vertex.name} ${i}, which said "${options.join('" or "')}"`,
            );
        }
      }
  };

  return {
    changed({ set }) {
      for (const change of set.changes) {
        if (change.kind !== 'put' || !change.entry.key.startsWith(keys.allCheckpoints)) continue;
        const [jobId = '', id] = change.entry.key.slice(keys.allCheckpoints.length).split('/');
        completed(jobId, Number(id), change.entry.value);
      }
    },
    checkpointAcked(ack, final) {
      const { jobId, deployment, checkpointId, vertexId, subtaskIndex } = ack;
      const subtask = `${jobId}/${vertexId}/${subtaskIndex}`;
      acks.set(`${subtask}/${checkpointId}`, ack);
      const run = `${subtask}/${deployment}`;
      if (final) last.set(run, [...(last.get(run) ?? []), ack]);
    },
    triggering(by, token, jobId, deployment, checkpointId) {
      const key = `${jobId}/${checkpointId}`;
      const user = triggered.get(key);
      if (user !== undefined && user !== token)
        world.violated(6, `${by} triggers checkpoint ${checkpointId} of ${deployment}: leader ${user} had that id`);
      triggered.set(key, token);
      const counter = etcd.get(keys.counter(jobId as JobId));
      const last = counter === undefined ? undefined : (JSON.parse(counter.value) as { last: number }).last;
      if (last !== undefined && checkpointId > last)
        world.violated(6, `checkpoint id ${checkpointId} was not reserved`);
    },
    taskStarted(worker, deployment, attemptId) {
      const { jobId } = deployment;
      const task = deployment.tasks.find((one) => one.attemptId === attemptId);
      const subtask = `${jobId}/${task?.vertexId}/${task?.subtaskIndex}`;
      const before = newestOf.get(subtask);
      // Of the past already: a message that was late, to a worker that was given up meanwhile. Outside it is fenced.
      if (before !== undefined && compareDeployments(deployment.deployment, before) < 0) return;
      newestOf.set(subtask, deployment.deployment);
      const leader = etcd.get(keys.leader)?.modRevision;
      if (leader === undefined || !deployment.deployment.startsWith(`${leader}-`)) return;
      if (etcd.get(keys.job(jobId)) === undefined) return;
      const from = task?.restore?.checkpointId;
      // The user named another job's savepoint, and it has none of its own.
      if (newest.get(jobId) === undefined && deployment.graph.restoreFrom !== undefined && from !== undefined) return;
      if (from !== newest.get(jobId))
        world.violated(
          6,
          `${worker} starts ${deployment.deployment} of ${jobId} from checkpoint ${from}, the newest is ${newest.get(jobId)}`,
        );
    },
  };
};

function handlesOf(snapshot: OperatorSnapshot): StateHandle[] {
  return [...snapshot.keyed.map(({ handle }) => handle), ...snapshot.operator.map(({ handle }) => handle)];
}

function render(snapshot: OperatorSnapshot | undefined, name: 'key' | 'digest'): string {
  if (snapshot === undefined) return '';
  return handlesOf(snapshot)
    .map((handle) => (handle.kind === 'object' ? handle[name] : Buffer.from(handle.bytes).toString('base64')))
    .join(' ');
}
