import fc from 'fast-check';
import { expect, test } from 'vitest';
import { expandJobGraph } from './execution-graph.ts';
import { assignSlots, channelsBetweenNodes, placeSlots } from './placement.ts';
import { jobGraph, streamGraph } from './testing/graphs.ts';

/** 1 -> 2 -> 3 and 1 -> 4, each task a vertex of its own. */
function example(options: { readonly sharing: boolean }) {
  const nodes = [1, 2, 3, 4].map((nodeId) => ({
    nodeId,
    chaining: 'never' as const,
    slotSharingGroup: options.sharing ? 'default' : `group ${nodeId}`,
  }));
  const graph = streamGraph(nodes, [
    [1, 2],
    [2, 3],
    [1, 4],
  ]);
  return expandJobGraph(jobGraph(graph));
}

test('1->2->3 and 1->4 on two nodes of two slots: each node holds its two, one channel crosses', () => {
  const plan = example({ sharing: false });
  expect(plan.slotsNeeded).toBe(4);
  const phi = placeSlots(plan, [
    { node: 'w1', slots: 2 },
    { node: 'w2', slots: 2 },
  ]);
  expect(phi).toBeDefined();
  const nodeOf = (name: string) => phi?.get(plan.tasks.find((task) => task.name.startsWith(name))?.slot ?? -1);
  expect([...(phi?.values() ?? [])].filter((node) => node === 'w1')).toHaveLength(2);
  expect(nodeOf('source 1')).toBe(nodeOf('map 4'));
  expect(nodeOf('map 2')).toBe(nodeOf('map 3'));
  expect(nodeOf('source 1')).not.toBe(nodeOf('map 2'));
});

test('1->2->3 and 1->4 use one node when it has the slots, and one slot when they may share it', () => {
  const nodes = [
    { node: 'small', slots: 3 },
    { node: 'large', slots: 4 },
  ];
  expect(new Set(placeSlots(example({ sharing: false }), nodes)?.values())).toEqual(new Set(['large']));

  const shared = example({ sharing: true });
  expect(shared.slotsNeeded).toBe(1);
  expect(placeSlots(shared, nodes)).toEqual(new Map([[0, 'large']]));
});

test('a plan that does not fit is not placed at all', () => {
  expect(
    placeSlots(example({ sharing: false }), [
      { node: 'w1', slots: 1 },
      { node: 'w2', slots: 2 },
    ]),
  ).toBeUndefined();
});

test('no node ever holds more than its slots, and no fewer nodes would do', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 8 }),
      (parallelism, sizes) => {
        const graph = streamGraph(
          [
            { nodeId: 1, parallelism },
            { nodeId: 2, parallelism },
          ],
          [[1, 2, 'HASH']],
        );
        const plan = expandJobGraph(jobGraph(graph));
        const capacities = sizes.map((slots, node) => ({ node, slots }));
        const phi = placeSlots(plan, capacities);
        const total = sizes.reduce((sum, slots) => sum + slots, 0);
        expect(phi === undefined).toBe(total < parallelism);
        if (phi === undefined) return;
        expect(phi.size).toBe(parallelism);
        const used = new Map<number, number>();
        for (const node of phi.values()) used.set(node, (used.get(node) ?? 0) + 1);
        for (const [node, count] of used) expect(count).toBeLessThanOrEqual(sizes[node] ?? 0);
        const largestOneFewer = [...sizes].sort((a, b) => b - a).slice(0, used.size - 1);
        expect(largestOneFewer.reduce((sum, slots) => sum + slots, 0)).toBeLessThan(parallelism);
      },
    ),
  );
});

test('granted slots are given out once each, and pipelines of FORWARD channels stay on one worker', () => {
  const graph = streamGraph(
    [
      { nodeId: 1, parallelism: 2, chaining: 'never', slotSharingGroup: 'a' },
      { nodeId: 2, parallelism: 2, chaining: 'never', slotSharingGroup: 'b' },
    ],
    [[1, 2, 'FORWARD']],
  );
  const plan = expandJobGraph(jobGraph(graph));
  const granted = ['x1', 'y1', 'x2', 'y2'];
  const assigned = assignSlots(plan, granted, (slot) => slot.slice(0, 1));
  expect(new Set(assigned?.values())).toEqual(new Set(granted));
  const nodes = new Map([...(assigned ?? [])].map(([slot, name]) => [slot, name.slice(0, 1)]));
  expect(channelsBetweenNodes(plan, nodes)).toBe(0);
  expect(assignSlots(plan, granted.slice(1), (slot) => slot)).toBeUndefined();
});
