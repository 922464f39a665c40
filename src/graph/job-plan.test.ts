import fc from 'fast-check';
import { expect, test } from 'vitest';
import { jobGraphSchema } from '../contracts/job-graph.ts';
import { translateStreamGraph } from './job-plan.ts';
import { defaultMaxParallelism } from './max-parallelism.ts';
import { type EdgeSpec, jobGraph, type NodeSpec, streamGraph } from './testing/graphs.ts';
import { anyStreamGraph } from './testing/arbitrary-graphs.ts';

const plan = (nodes: readonly NodeSpec[], edges: readonly EdgeSpec[]) =>
  translateStreamGraph(streamGraph(nodes, edges)).plan;

test('a word count is two vertices: what is chained has one name and one id, that of its head', () => {
  const graph = streamGraph(
    [
      { nodeId: 1, name: 'Source: lines' },
      { nodeId: 2, kind: 'flatMap', name: 'Flat Map' },
      { nodeId: 3, kind: 'reduce', name: 'Keyed Aggregation' },
      { nodeId: 4, kind: 'sink', name: 'Sink: out', twoPhaseCommit: true },
    ],
    [
      [1, 2],
      [2, 3, 'HASH'],
      [3, 4],
    ],
  );
  const { plan, operatorIds, edgeIds } = translateStreamGraph(graph, new Map([[1, ['a', 'b']]]));
  expect(plan.vertices.map((vertex) => vertex.name)).toEqual([
    'Source: lines -> Flat Map',
    'Keyed Aggregation -> Sink: out',
  ]);
  expect(plan.vertices.map((vertex) => vertex.id)).toEqual([operatorIds.get(1), operatorIds.get(3)]);
  expect(plan.vertices[0]?.operators[0]?.splits).toEqual(['a', 'b']);
  expect(plan.vertices[0]?.operators[1]?.inputs).toEqual([operatorIds.get(1)]);
  expect(plan.vertices[1]?.operators[1]?.twoPhaseCommit).toBe(true);
  expect(plan.edges).toHaveLength(1);
  expect(plan.edges[0]).toMatchObject({
    id: `${operatorIds.get(2)}-${operatorIds.get(3)}-0`,
    source: operatorIds.get(1),
    sourceOperator: operatorIds.get(2),
    target: operatorIds.get(3),
    partitioner: 'HASH',
  });
  expect([...edgeIds]).toEqual([[graph.edges[1], plan.edges[0]?.id]]);
});

test('a chain that branches shows its branches', () => {
  const { vertices } = plan(
    [1, 2, 3, 4].map((nodeId) => ({ nodeId, name: `n${nodeId}` })),
    [
      [1, 2],
      [2, 3],
      [1, 4],
    ],
  );
  expect(vertices.map((vertex) => vertex.name)).toEqual(['n1 -> (n2 -> n3, n4)']);
});

test('operators are not chained across a repartitioning, another parallelism, group, or an author’s wish', () => {
  const separate = (second: Partial<NodeSpec>, first: Partial<NodeSpec> = {}, edge: EdgeSpec = [1, 2]) =>
    plan(
      [
        { nodeId: 1, ...first },
        { ...second, nodeId: 2 },
      ],
      [edge],
    ).vertices.length === 2;
  expect(separate({})).toBe(false);
  expect(separate({}, {}, [1, 2, 'REBALANCE'])).toBe(true);
  expect(separate({ parallelism: 2 }, {}, [1, 2, 'RESCALE'])).toBe(true);
  expect(separate({ slotSharingGroup: 'other' })).toBe(true);
  expect(separate({ maxParallelism: 256 })).toBe(true);
  expect(separate({ chaining: 'head' })).toBe(true);
  expect(separate({ chaining: 'never' })).toBe(true);
  expect(separate({}, { chaining: 'never' })).toBe(true);
  expect(separate({}, { chaining: 'head' })).toBe(false);
});

test('an operator with two inputs heads its own chain, also when both come from one operator', () => {
  const { vertices, edges } = plan(
    [{ nodeId: 1 }, { nodeId: 2 }],
    [
      [1, 2],
      [1, 2],
    ],
  );
  expect(vertices).toHaveLength(2);
  expect(new Set(edges.map((edge) => edge.id)).size).toBe(2);
});

test('vertices come in topological order even where heads alone would not', () => {
  // 2 is chained to 1, and 3 reads 4, which is made later.
  const { vertices } = plan(
    [{ nodeId: 1 }, { nodeId: 2 }, { nodeId: 3, kind: 'map' }, { nodeId: 4, kind: 'map' }],
    [
      [1, 2],
      [4, 3, 'REBALANCE'],
      [2, 4, 'REBALANCE'],
    ],
  );
  expect(vertices.map((vertex) => vertex.name)).toEqual(['source 1 -> map 2', 'map 4', 'map 3']);
});

test('a name of any length becomes a graph that can be stored', () => {
  const nodes = Array.from({ length: 30 }, (_, i) => ({ nodeId: i + 1, name: 'x'.repeat(400) }));
  const edges = nodes.slice(1).map(({ nodeId }): EdgeSpec => [nodeId - 1, nodeId]);
  expect(jobGraph(streamGraph(nodes, edges)).vertices[0]?.name).toHaveLength(2_000);
});

test('what cannot be a job is refused with every reason', () => {
  expect(() => plan([], [])).toThrow(/no operators/);
  expect(() => plan([{ nodeId: 1, kind: 'map' }], [])).toThrow(/"map 1" has no input|has no input/);
  expect(() =>
    plan(
      [
        { nodeId: 1, parallelism: 3, maxParallelism: 2, uid: 'u' },
        { nodeId: 2, uid: 'u' },
      ],
      [[1, 2]],
    ),
  ).toThrow(/over its maximum parallelism 2; .* same uid "u"; FORWARD .* equal parallelism, not 3 and 1/);
  expect(() =>
    plan(
      [{ nodeId: 1 }, { nodeId: 2 }, { nodeId: 3 }],
      [
        [1, 2],
        [3, 2],
        [2, 3],
      ],
    ),
  ).toThrow(/form a cycle: "map 2", "map 3"/);
  expect(() => plan([{ nodeId: 1 }], [[1, 9]])).toThrow(/does not exist/);
});

test('the default maximum parallelism is Flink’s', () => {
  expect([1, 85, 86, 128, 171, 20_000, 32_768].map(defaultMaxParallelism)).toEqual([
    128, 128, 256, 256, 256, 32_768, 32_768,
  ]);
});

test('an id depends on the uid alone, else on what is read: never on names or parallelism', () => {
  const ids = (nodes: readonly NodeSpec[], edges: readonly EdgeSpec[]) =>
    translateStreamGraph(streamGraph(nodes, edges)).operatorIds;
  const chain: EdgeSpec[] = [
    [1, 2],
    [2, 3, 'HASH'],
  ];
  const before = ids([{ nodeId: 1 }, { nodeId: 2 }, { nodeId: 3, uid: 'counts' }], chain);
  const renamed = ids(
    [
      { nodeId: 1, name: 'a', parallelism: 4 },
      { nodeId: 2, name: 'b', parallelism: 4 },
      { nodeId: 3, name: 'c', uid: 'counts' },
    ],
    chain,
  );
  expect([...renamed.values()]).toEqual([...before.values()]);
  // Another operator in front of it: the one with a uid keeps its id, the one without does not.
  const moved = ids(
    [{ nodeId: 1 }, { nodeId: 2 }, { nodeId: 3 }, { nodeId: 4, uid: 'counts' }],
    [
      [1, 2],
      [2, 3],
      [3, 4, 'HASH'],
    ],
  );
  expect(moved.get(4)).toBe(before.get(3));
  expect(moved.get(3)).not.toBe(before.get(2));
});

test('an unrelated branch added later changes no id', () => {
  fc.assert(
    fc.property(anyStreamGraph(), fc.nat(), (graph, pick) => {
      const before = translateStreamGraph(graph);
      const attachTo = graph.nodes[pick % graph.nodes.length];
      if (attachTo === undefined) return;
      const nodeId = graph.nodes.length + 1;
      const after = translateStreamGraph({
        ...graph,
        nodes: [...graph.nodes, { ...attachTo, nodeId, kind: 'filter', name: 'added', uid: 'added' }],
        edges: [
          ...graph.edges,
          {
            sourceNode: attachTo.nodeId,
            targetNode: nodeId,
            inputIndex: 0,
            partitioner: 'REBALANCE',
            keySelector: undefined,
          },
        ],
      });
      for (const [node, id] of before.operatorIds) expect(after.operatorIds.get(node)).toBe(id);
      expect(after.plan.fingerprint).not.toBe(before.plan.fingerprint);
    }),
  );
});

test('any program: a valid graph, each operator once, topological order, chained edges inside, others outside', () => {
  fc.assert(
    fc.property(anyStreamGraph(), (graph) => {
      const { plan, operatorIds, edgeIds } = translateStreamGraph(graph);
      expect(plan).toEqual(translateStreamGraph(graph).plan);
      jobGraphSchema.omit({ jobId: true, bundle: true, submittedWallMs: true, restoreFrom: true }).parse(plan);
      const all = plan.vertices.flatMap((vertex) => vertex.operators.map((operator) => operator.id));
      expect([...all].sort()).toEqual([...operatorIds.values()].sort());
      const position = new Map(plan.vertices.map((vertex, index) => [vertex.id, index]));
      for (const edge of plan.edges) {
        expect(position.get(edge.source)).toBeLessThan(position.get(edge.target) ?? -1);
        expect(plan.vertices.find((v) => v.id === edge.target)?.operators[0]?.id).toBe(edge.targetOperator);
      }
      expect(new Set(plan.edges.map((edge) => edge.id)).size).toBe(plan.edges.length);
      const chained = plan.vertices.flatMap((v) => v.operators.flatMap((o) => o.inputs)).length;
      expect(chained + edgeIds.size).toBe(graph.edges.length);
    }),
  );
});

test('the fingerprint changes with the structure and with nothing else', () => {
  fc.assert(
    fc.property(anyStreamGraph(), fc.nat(), (graph, pick) => {
      const { fingerprint } = translateStreamGraph(graph).plan;
      const same = translateStreamGraph({ ...graph, name: 'other', config: { ...graph.config, bufferTimeoutMs: 1 } });
      expect(same.plan.fingerprint).toBe(fingerprint);
      const at = pick % graph.nodes.length;
      const changed = (change: object) =>
        translateStreamGraph({
          ...graph,
          nodes: graph.nodes.map((node, i) => (i === at ? { ...node, ...change } : node)),
        }).plan.fingerprint;
      expect(changed({ name: 'renamed' })).not.toBe(fingerprint);
      expect(changed({ uid: 'fresh uid' })).not.toBe(fingerprint);
      expect(changed({ slotSharingGroup: 'fresh group' })).not.toBe(fingerprint);
      expect(changed({ maxParallelism: 12_345 })).not.toBe(fingerprint);
    }),
  );
});
