import { present } from '../kernel/assert.ts';
import { channelsBetweenSlots, type ExecutionPlan } from './execution-graph.ts';

/** A node and how many slots it can give. */
export interface NodeCapacity<Node> {
  readonly node: Node;
  readonly slots: number;
}

/** Beyond this many slots only the order of their numbers decides: pairs would be too many to look at. */
const CHANNEL_AWARE_SLOTS_MAX = 512;
const SWAP_PASSES_MAX = 8;

type SlotChannels = ReadonlyMap<number, ReadonlyMap<number, number>>;

/**
 * phi: V' -> W. Every slot of the plan (a set of subtasks V' that share it) gets a node of W, such that
 * no node w holds more than its slots s_w and as little as possible is used: first as few slots (slot
 * sharing, done by the plan), then as few nodes, then as few channels between nodes.
 *
 * The number of nodes is the least possible: slots are of one size, so the largest nodes first is optimal.
 * Channels are kept together greedily and then by swapping pairs while that helps (the exact problem is
 * graph partitioning, NP-hard).
 *
 * Undefined when the nodes have fewer slots than the plan needs.
 */
export function placeSlots<Node>(
  plan: ExecutionPlan,
  capacities: readonly NodeCapacity<Node>[],
): Map<number, Node> | undefined {
  const usable = capacities.filter((capacity) => capacity.slots > 0);
  // Stable: among equal nodes the one named first, so that the same cluster gives the same placement.
  const largestFirst = usable
    .map((c, index) => ({ ...c, index }))
    .sort((a, b) => b.slots - a.slots || a.index - b.index);
  const bins: { readonly node: Node; free: number }[] = [];
  let missing = plan.slotsNeeded;
  for (const { node, slots } of largestFirst) {
    if (missing <= 0) break;
    bins.push({ node, free: slots });
    missing -= slots;
  }
  if (missing > 0) return undefined;

  const channels: SlotChannels = plan.slotsNeeded > CHANNEL_AWARE_SLOTS_MAX ? new Map() : channelsBetweenSlots(plan);
  const unplaced = new Set(plan.slots.map((slot) => slot.slotNumber));
  const placement = new Map<number, Node>();
  for (const bin of bins) {
    // How many channels each waiting slot has to slots already in this bin.
    const pull = new Map<number, number>();
    while (bin.free > 0 && unplaced.size > 0) {
      const next = strongest(unplaced, pull);
      unplaced.delete(next);
      placement.set(next, bin.node);
      bin.free--;
      for (const [neighbour, count] of channels.get(next) ?? []) {
        pull.set(neighbour, (pull.get(neighbour) ?? 0) + count);
      }
    }
  }
  swapWhileItHelps(placement, channels);
  return placement;
}

/** Channels of a placement whose two ends are on different nodes. */
export function channelsBetweenNodes<Node>(plan: ExecutionPlan, placement: ReadonlyMap<number, Node>): number {
  let crossing = 0;
  for (const [slot, neighbours] of channelsBetweenSlots(plan)) {
    for (const [other, count] of neighbours) {
      if (slot < other && placement.get(slot) !== placement.get(other)) crossing += count;
    }
  }
  return crossing;
}

/**
 * Gives each slot number of the plan one of the granted slots, with the same aim: tasks that exchange
 * records on one worker when that is possible. `nodeOf` names a slot's worker. Undefined when too few.
 */
export function assignSlots<Slot>(
  plan: ExecutionPlan,
  granted: readonly Slot[],
  nodeOf: (slot: Slot) => string,
): Map<number, Slot> | undefined {
  const byNode = new Map<string, Slot[]>();
  for (const slot of granted) {
    const node = nodeOf(slot);
    const slots = byNode.get(node);
    if (slots === undefined) byNode.set(node, [slot]);
    else slots.push(slot);
  }
  const capacities = [...byNode].map(([node, slots]) => ({ node, slots: slots.length }));
  const placement = placeSlots(plan, capacities);
  if (placement === undefined) return undefined;
  const assignment = new Map<number, Slot>();
  for (const [slotNumber, node] of [...placement].sort(([a], [b]) => a - b)) {
    assignment.set(slotNumber, present(byNode.get(node)?.shift(), 'a granted slot of the node'));
  }
  return assignment;
}

/** The slot with most channels into the bin; the lowest number among equals. */
function strongest(unplaced: ReadonlySet<number>, pull: ReadonlyMap<number, number>): number {
  let best: number | undefined;
  let bestPull = -1;
  for (const slot of unplaced) {
    const strength = pull.get(slot) ?? 0;
    if (strength > bestPull) {
      best = slot;
      bestPull = strength;
    }
  }
  return present(best, 'an unplaced slot');
}

/** Exchanges two slots of different nodes as long as that leaves fewer channels between nodes. */
function swapWhileItHelps<Node>(placement: Map<number, Node>, channels: SlotChannels): void {
  if (channels.size === 0) return;
  const slots = [...placement.keys()].sort((a, b) => a - b);
  // Channels that `slot` has to `node`, not counting those to `except`.
  const towards = (slot: number, node: Node, except: number): number => {
    let sum = 0;
    for (const [other, count] of channels.get(slot) ?? []) {
      if (other !== except && placement.get(other) === node) sum += count;
    }
    return sum;
  };
  for (let pass = 0, improved = true; improved && pass < SWAP_PASSES_MAX; pass++) {
    improved = false;
    for (const a of slots) {
      for (const b of slots) {
        const nodeA = present(placement.get(a), 'node of a placed slot');
        const nodeB = present(placement.get(b), 'node of a placed slot');
        if (b <= a || nodeA === nodeB) continue;
        const now = towards(a, nodeA, b) + towards(b, nodeB, a);
        const swapped = towards(a, nodeB, b) + towards(b, nodeA, a);
        if (swapped <= now) continue;
        placement.set(a, nodeB);
        placement.set(b, nodeA);
        improved = true;
      }
    }
  }
}
