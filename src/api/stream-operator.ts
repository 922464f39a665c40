import type { Partitioner } from '../contracts/job-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkParallelism, checkText, checkWithinMaxParallelism } from './arguments.ts';
import type { OperatorDefinition } from './operator-definition.ts';

/** Where an operator's records come from. */
export interface StreamInput {
  readonly operator: StreamOperator;
  /** Undefined: FORWARD when the parallelism is equal in the end, else REBALANCE. */
  readonly partitioner: Partitioner | undefined;
  readonly keySelector: ((value: unknown) => unknown) | undefined;
  /** Which input of a two-input operator it feeds; 0 if left out. */
  readonly inputIndex?: number;
  /** The id of the side output that is read instead of the operator's results. */
  readonly sideOutput?: string;
}

export interface OperatorSettings {
  readonly name: string;
  readonly uid: string | undefined;
  readonly parallelism: number;
  readonly maxParallelism: number | undefined;
  /** Undefined: that of its inputs when they agree, else `default`. */
  readonly slotSharingGroup: string | undefined;
  readonly chaining: 'always' | 'head' | 'never';
}

/** What operators share: their order of creation and the uids already taken. */
export interface OperatorRegistry {
  readonly maxParallelism: number | undefined;
  nextSequence(): number;
  uidOwner(uid: string): StreamOperator | undefined;
  takeUid(uid: string, owner: StreamOperator): void;
  releaseUid(uid: string): void;
}

/** One operator as written: a node of the program's graph that points at its inputs. */
export class StreamOperator {
  readonly sequence: number;
  private current: OperatorSettings;

  constructor(
    private readonly registry: OperatorRegistry,
    readonly definition: OperatorDefinition,
    readonly inputs: readonly StreamInput[],
    initial: { readonly name: string; readonly parallelism: number },
  ) {
    this.sequence = registry.nextSequence();
    this.current = {
      ...initial,
      uid: undefined,
      maxParallelism: undefined,
      slotSharingGroup: undefined,
      chaining: 'always',
    };
  }

  get settings(): OperatorSettings {
    return this.current;
  }

  name(name: string): void {
    this.current = { ...this.current, name: checkText('an operator name', name, 400) };
  }

  uid(uid: string): void {
    checkText('a uid', uid, 500);
    const owner = this.registry.uidOwner(uid);
    if (owner !== undefined && owner !== this) {
      throw new InvalidArgumentError(`the uid "${uid}" is already that of the operator "${owner.settings.name}"`, {
        hint: 'A uid finds the state of one operator again: give each operator its own.',
      });
    }
    if (this.current.uid !== undefined) this.registry.releaseUid(this.current.uid);
    this.registry.takeUid(uid, this);
    this.current = { ...this.current, uid };
  }

  setParallelism(parallelism: number): void {
    checkParallelism('parallelism', parallelism);
    checkWithinMaxParallelism(parallelism, this.current.maxParallelism ?? this.registry.maxParallelism);
    this.current = { ...this.current, parallelism };
  }

  setMaxParallelism(maxParallelism: number): void {
    checkParallelism('maximum parallelism', maxParallelism);
    checkWithinMaxParallelism(this.current.parallelism, maxParallelism);
    this.current = { ...this.current, maxParallelism };
  }

  slotSharingGroup(group: string): void {
    this.current = { ...this.current, slotSharingGroup: checkText('a slot sharing group', group, 200) };
  }

  chaining(chaining: OperatorSettings['chaining']): void {
    this.current = { ...this.current, chaining };
  }
}
