import type { JobConfig } from '../contracts/job-graph.ts';
import { defaultMaxParallelism } from '../graph/max-parallelism.ts';
import type { StreamEdge, StreamGraph, StreamNode } from '../graph/stream-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { present } from '../kernel/assert.ts';
import { checkWithinMaxParallelism } from './arguments.ts';
import type { OperatorDefinition } from './operator-definition.ts';
import type { StreamInput, StreamOperator } from './stream-operator.ts';

export interface GeneratorInput {
  readonly name: string;
  /** Everything the program made for this job; what they read is found from them. */
  readonly operators: readonly StreamOperator[];
  readonly maxParallelism: number | undefined;
  readonly config: JobConfig;
}

const DEFAULT_GROUP = 'default';

/** The program as written, settled: default partitioners, slot sharing groups and maximum parallelism. */
export function generateStreamGraph(input: GeneratorInput): StreamGraph<OperatorDefinition> {
  const operators = reachable(input.operators);
  const ids = new Map(operators.map((operator, index) => [operator, index + 1]));
  const groups = new Map<StreamOperator, string>();
  const uids = new Set<string>();
  const nodes: StreamNode<OperatorDefinition>[] = [];
  const edges: StreamEdge[] = [];
  for (const operator of operators) {
    const { settings } = operator;
    const group = settings.slotSharingGroup ?? inheritedGroup(operator, groups);
    groups.set(operator, group);
    const maxParallelism = settings.maxParallelism ?? input.maxParallelism;
    checkWithinMaxParallelism(settings.parallelism, maxParallelism);
    if (settings.uid !== undefined) {
      if (uids.has(settings.uid)) throw new InvalidArgumentError(`two operators have the uid "${settings.uid}"`);
      uids.add(settings.uid);
    }
    const nodeId = present(ids.get(operator), 'node id');
    nodes.push({
      nodeId,
      kind: operator.definition.kind,
      name: displayName(operator),
      uid: settings.uid,
      parallelism: settings.parallelism,
      maxParallelism: maxParallelism ?? defaultMaxParallelism(settings.parallelism),
      slotSharingGroup: group,
      chaining: settings.chaining,
      twoPhaseCommit: operator.definition.kind === 'sink' && operator.definition.sink.twoPhaseCommit === true,
      definition: operator.definition,
    });
    for (const stream of operator.inputs) {
      edges.push({
        sourceNode: present(ids.get(stream.operator), 'node id of an input'),
        targetNode: nodeId,
        inputIndex: stream.inputIndex ?? 0,
        partitioner: settledPartitioner(stream, operator),
        keySelector: stream.keySelector,
        ...(stream.sideOutput === undefined ? {} : { sideOutput: stream.sideOutput }),
      });
    }
  }
  return { name: input.name, nodes, edges, config: input.config };
}

/** The operators and all they read, in order of creation: that order numbers the nodes. */
function reachable(roots: readonly StreamOperator[]): StreamOperator[] {
  const found = new Set<StreamOperator>();
  const waiting = [...roots];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (found.has(next)) continue;
    found.add(next);
    waiting.push(...next.inputs.map((input) => input.operator));
  }
  return [...found].sort((a, b) => a.sequence - b.sequence);
}

function inheritedGroup(operator: StreamOperator, groups: ReadonlyMap<StreamOperator, string>): string {
  const inherited = new Set(operator.inputs.map((input) => groups.get(input.operator)));
  const [only] = inherited;
  return inherited.size === 1 && only !== undefined ? only : DEFAULT_GROUP;
}

function settledPartitioner(stream: StreamInput, target: StreamOperator): StreamEdge['partitioner'] {
  const sourceParallelism = stream.operator.settings.parallelism;
  const targetParallelism = target.settings.parallelism;
  const equal = sourceParallelism === targetParallelism;
  if (stream.partitioner === 'FORWARD' && !equal) {
    throw new InvalidArgumentError(
      `forward() needs equal parallelism, but "${stream.operator.settings.name}" has ${sourceParallelism} and "${target.settings.name}" ${targetParallelism}`,
      { hint: 'Use rebalance() or rescale(), or set the same parallelism.' },
    );
  }
  return stream.partitioner ?? (equal ? 'FORWARD' : 'REBALANCE');
}

function displayName(operator: StreamOperator): string {
  const { name } = operator.settings;
  const prefix =
    operator.definition.kind === 'source' ? 'Source: ' : operator.definition.kind === 'sink' ? 'Sink: ' : '';
  return name.startsWith(prefix) ? name : `${prefix}${name}`;
}
