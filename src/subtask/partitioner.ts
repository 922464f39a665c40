import { unreachable } from '../kernel/assert.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import type { Partitioner } from '../contracts/job-graph.ts';
import { subtaskForKeyGroup } from '../contracts/key-groups.ts';
import type { Random } from '../kernel/random.ts';
import { canonicalKey, keyGroupFor } from '../state/key-group-hash.ts';

/** Index of the subpartition that a record goes to, or `all`. */
export type SelectSubpartition = ((record: unknown) => number) | 'all';

export interface PartitionSpec {
  readonly partitioner: Partitioner;
  readonly subpartitions: number;
  /** The producing subtask: where round-robin starts, so that producers do not all begin with the same consumer. */
  readonly subtaskIndex: number;
  /** Of the consuming vertex, for HASH. */
  readonly maxParallelism: number;
  readonly parallelism: number;
  /** For SHUFFLE. */
  readonly random: Random;
  readonly keySelector: ((value: unknown) => unknown) | undefined;
}

export function createPartitioner(spec: PartitionSpec): SelectSubpartition {
  const { partitioner, subpartitions, maxParallelism, parallelism, keySelector } = spec;
  switch (partitioner) {
    case 'FORWARD':
    case 'GLOBAL':
      return () => 0;
    case 'BROADCAST':
      return 'all';
    case 'REBALANCE':
    case 'RESCALE': {
      let next = spec.subtaskIndex % subpartitions;
      return () => {
        const chosen = next;
        next = next + 1 === subpartitions ? 0 : next + 1;
        return chosen;
      };
    }
    case 'SHUFFLE':
      return () => spec.random.int(subpartitions);
    case 'HASH': {
      if (keySelector === undefined) throw new InvalidArgumentError('a HASH edge has no key selector in the program');
      if (subpartitions === 1) {
        return (record) => {
          const key = keySelector(record);
          // There is nowhere else to go, but what is no key must not become one at a higher parallelism only.
          if (typeof key !== 'string' && typeof key !== 'number') canonicalKey(key);
          return 0;
        };
      }
      const targets = Uint16Array.from({ length: maxParallelism }, (_, keyGroup) =>
        subtaskForKeyGroup(maxParallelism, parallelism, keyGroup),
      );
      return (record) => targets[keyGroupFor(keySelector(record), maxParallelism)] as number;
    }
    default:
      return unreachable(partitioner);
  }
}
