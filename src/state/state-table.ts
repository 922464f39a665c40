import { MillraceError } from '../kernel/errors.ts';
import type { KeyGroupRange } from '../contracts/key-groups.ts';
import { type Epochs, StateCells } from './state-cells.ts';

/**
 * What a cell of the state holds. List, map, reducing and aggregating state will be kinds of their own
 * over the same cells.
 */
export type StateKind = 'value';

/** One named state of an operator: its cells by key group. */
export class StateTable {
  /** By key group, counted from the first of the range. */
  readonly groups: readonly StateCells[];

  constructor(
    readonly name: string,
    readonly kind: StateKind,
    range: KeyGroupRange,
    epochs: Epochs,
  ) {
    this.groups = Array.from({ length: range.last - range.first + 1 }, () => new StateCells(epochs));
  }

  get size(): number {
    return this.groups.reduce((sum, cells) => sum + cells.size, 0);
  }
}

/** All states of an operator by name; also those restored that no function has asked for yet. */
export class StateTables {
  private readonly tables = new Map<string, StateTable>();

  constructor(
    private readonly range: KeyGroupRange,
    private readonly epochs: Epochs,
  ) {}

  /** The state of that name, made if need be. */
  table(name: string, kind: StateKind): StateTable {
    let table = this.tables.get(name);
    if (table === undefined) {
      table = new StateTable(name, kind, this.range, this.epochs);
      this.tables.set(name, table);
    }
    if (table.kind !== kind) {
      throw new MillraceError(
        'CONFLICT',
        `state '${name}' is ${table.kind} state and cannot be used as ${kind} state`,
        {
          hint: 'give the new state another name, or another uid to its operator',
        },
      );
    }
    return table;
  }

  all(): readonly StateTable[] {
    return [...this.tables.values()];
  }

  get size(): number {
    return this.all().reduce((sum, table) => sum + table.size, 0);
  }
}
