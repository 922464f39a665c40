import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Partitioner } from '../contracts/job-graph.ts';
import { keyGroupRange, subtaskForKeyGroup } from '../contracts/key-groups.ts';
import { slotDeploymentSchema } from '../contracts/task.ts';
import { asAllocationId, asAttemptId, asFencingToken, deploymentId } from '../kernel/ids.ts';
import { channelsOf, consumersOf, producersOf } from './channels.ts';
import { buildSlotDeployments, type ExecutionPlan, expandJobGraph } from './execution-graph.ts';
import { anyStreamGraph } from './testing/arbitrary-graphs.ts';
import { jobGraph, streamGraph } from './testing/graphs.ts';

const hex = (n: number) => n.toString(16).padStart(32, '0');

function deploy(plan: ExecutionPlan, regions?: ReadonlySet<number>) {
  const allocations = new Map(
    plan.slots.map(({ slotNumber }) => [
      slotNumber,
      { allocationId: asAllocationId(hex(1_000 + slotNumber)), dataAddress: { host: '127.0.0.1', port: slotNumber } },
    ]),
  );
  const attempts = new Map(
    plan.tasks.map((task, i) => [task.key, { attemptId: asAttemptId(hex(i)), attemptNumber: 0 }]),
  );
  const deployment = deploymentId(asFencingToken(7n), 1);
  return buildSlotDeployments(plan, { deployment, allocations, attempts, ...(regions && { regions }) });
}

test('a word count at parallelism 2 needs two slots, each with a subtask of both vertices', () => {
  const graph = streamGraph(
    [
      { nodeId: 1, parallelism: 2 },
      { nodeId: 2, parallelism: 2, kind: 'reduce' },
    ],
    [[1, 2, 'HASH']],
  );
  const plan = expandJobGraph(jobGraph(graph));
  expect(plan.tasks.map((task) => task.name)).toEqual([
    'source 1 (1/2)',
    'source 1 (2/2)',
    'reduce 2 (1/2)',
    'reduce 2 (2/2)',
  ]);
  expect(plan.slotsNeeded).toBe(2);
  expect(plan.regions).toHaveLength(1);
  const [first, second] = [...deploy(plan).values()];
  expect(first?.tasks.map((task) => task.subtaskIndex)).toEqual([0, 0]);
  expect(first?.tasks[0]?.outputs).toMatchObject([{ subpartitions: 2, firstConsumer: 0 }]);
  expect(second?.tasks[1]?.inputs).toMatchObject([
    { producerSubtask: 0, subpartition: 1, producerAllocation: hex(1_000), producerAddress: { port: 0 } },
    { producerSubtask: 1, subpartition: 1, producerAllocation: hex(1_001), producerAddress: { port: 1 } },
  ]);
});

test('FORWARD pipelines are regions of their own, and one of them can be deployed alone', () => {
  const graph = streamGraph(
    [
      { nodeId: 1, parallelism: 3, chaining: 'never' },
      { nodeId: 2, parallelism: 3, chaining: 'never' },
    ],
    [[1, 2]],
  );
  const plan = expandJobGraph(jobGraph(graph));
  expect(plan.regions.map((region) => region.length)).toEqual([2, 2, 2]);
  const deployments = [...deploy(plan, new Set([1])).values()];
  expect(deployments).toHaveLength(1);
  expect(deployments[0]?.tasks.map((task) => task.subtaskIndex)).toEqual([1, 1]);
});

test('slot sharing groups take slots of their own', () => {
  const graph = streamGraph(
    [
      { nodeId: 1, parallelism: 2 },
      { nodeId: 2, parallelism: 3, slotSharingGroup: 'b' },
      { nodeId: 3, parallelism: 1 },
    ],
    [
      [1, 2, 'REBALANCE'],
      [2, 3, 'REBALANCE'],
    ],
  );
  const plan = expandJobGraph(jobGraph(graph));
  expect(plan.slots.map((slot) => [slot.slotSharingGroup, slot.tasks.length])).toEqual([
    ['default', 2],
    ['default', 1],
    ['b', 1],
    ['b', 1],
    ['b', 1],
  ]);
});

test('consumers and producers agree on every channel of every pattern', () => {
  const partitioners: Partitioner[] = ['HASH', 'REBALANCE', 'RESCALE', 'BROADCAST', 'GLOBAL'];
  const size = fc.integer({ min: 1, max: 40 });
  fc.assert(
    fc.property(fc.constantFrom(...partitioners), size, size, (partitioner, producers, consumers) => {
      const sizes = { producers, consumers };
      const out = [...channelsOf(partitioner, sizes)].map(({ producer, consumer }) => `${producer}>${consumer}`);
      const back = Array.from({ length: consumers }, (_, consumer) =>
        producersOf(partitioner, sizes, consumer).map((producer) => `${producer}>${consumer}`),
      ).flat();
      expect(back.sort()).toEqual(out.sort());
      // Nobody is left out: every producer has somebody to write to, every consumer somebody to read.
      for (let p = 0; p < producers; p++) expect(consumersOf(partitioner, sizes, p).count).toBeGreaterThan(0);
      for (let c = 0; c < consumers; c++) expect(producersOf(partitioner, sizes, c).length).toBeGreaterThan(0);
      if (partitioner === 'RESCALE') expect(out).toHaveLength(Math.max(producers, consumers));
    }),
  );
});

test('key groups are owned once each, by the subtask that records of their keys are sent to', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 300 }), (a, b) => {
      const [parallelism, maxParallelism] = [Math.min(a, b), Math.max(a, b)];
      let next = 0;
      for (let subtask = 0; subtask < parallelism; subtask++) {
        const { first, last } = keyGroupRange(maxParallelism, parallelism, subtask);
        expect(first).toBe(next);
        expect(last).toBeGreaterThanOrEqual(first);
        expect(subtaskForKeyGroup(maxParallelism, parallelism, first)).toBe(subtask);
        expect(subtaskForKeyGroup(maxParallelism, parallelism, last)).toBe(subtask);
        next = last + 1;
      }
      expect(next).toBe(maxParallelism);
    }),
  );
});

test('any job: every record has a path, every input channel a matching output, slots and regions hold', () => {
  fc.assert(
    fc.property(anyStreamGraph(), (program) => {
      const graph = jobGraph(program);
      const plan = expandJobGraph(graph);
      const deployments = [...deploy(plan).values()].map((deployment) => slotDeploymentSchema.parse(deployment));
      const tasks = deployments.flatMap((deployment) =>
        deployment.tasks.map((task) => ({ ...task, allocationId: deployment.allocationId })),
      );
      expect(tasks).toHaveLength(graph.vertices.reduce((sum, vertex) => sum + vertex.parallelism, 0));

      const byAttempt = new Map(tasks.map((task) => [task.attemptId, task]));
      const regionOf = new Map<string, number>(
        plan.regions.flatMap((region, i) => region.map((key): [string, number] => [key, i])),
      );
      const read = new Set<string>();
      for (const task of tasks) {
        for (const input of task.inputs) {
          const producer = byAttempt.get(input.producerAttempt);
          const output = producer?.outputs.find((candidate) => candidate.edgeId === input.edgeId);
          expect(producer?.subtaskIndex).toBe(input.producerSubtask);
          expect(producer?.allocationId).toBe(input.producerAllocation);
          expect(input.subpartition).toBeLessThan(output?.subpartitions ?? 0);
          expect((output?.firstConsumer ?? -1) + input.subpartition).toBe(task.subtaskIndex);
          expect(regionOf.get(`${producer?.vertexId}_${producer?.subtaskIndex}`)).toBe(
            regionOf.get(`${task.vertexId}_${task.subtaskIndex}`),
          );
          read.add(`${input.producerAttempt} ${input.edgeId} ${input.subpartition}`);
        }
      }
      // Each subpartition written is read by exactly one channel: nothing is lost, nothing read twice.
      const written = tasks.flatMap((task) =>
        task.outputs.flatMap((output) =>
          Array.from({ length: output.subpartitions }, (_, s) => `${task.attemptId} ${output.edgeId} ${s}`),
        ),
      );
      expect([...read].sort()).toEqual(written.sort());
      expect(tasks.reduce((sum, task) => sum + task.inputs.length, 0)).toBe(written.length);

      for (const deployment of deployments) {
        const vertices = deployment.tasks.map((task) => task.vertexId);
        expect(new Set(vertices).size).toBe(vertices.length);
        const groups = new Set(vertices.map((id) => graph.vertices.find((v) => v.id === id)?.slotSharingGroup));
        expect(groups.size).toBe(1);
      }
    }),
  );
});
