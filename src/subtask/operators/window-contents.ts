import type { WindowContents } from '../../api/operator-definition.ts';
import type { Collector, RuntimeContext } from '../../api/functions.ts';
import type { ProcessWindowFunction, WindowContext } from '../../api/windows.ts';
import { copyRecord } from '../../exchange/record-copies.ts';
import { InvalidArgumentError } from '../../kernel/errors.ts';
import type { PackedSums, Pane } from '../../state/ports.ts';

/** What one kind of window does with the records of a key and with its result. */
export interface ContentsOfWindow {
  /** It may keep records and change them. */
  readonly keepsRecords: boolean;
  open?(context: RuntimeContext): void;
  close?(): void;
  /** For one window's pane: a function that takes a record of a key. `sums`: the pane's, if it is one of sums. */
  into(pane: Pane, sums: PackedSums | undefined): (record: unknown, key: unknown) => void;
  /** Emits what a key has in a window that has ended. */
  emit(key: unknown, value: unknown, context: WindowContext, out: Collector<unknown>): unknown;
}

/** `select` makes a key the current one of the state. */
export function contentsOf(contents: WindowContents, select: (key: unknown) => void): ContentsOfWindow {
  switch (contents.kind) {
    case 'reduce':
      return reducing(contents, select);
    case 'aggregate': {
      const { fn } = contents;
      return {
        keepsRecords: true,
        into: (pane) => (record, key) => {
          select(key);
          const next = fn.add(record, pane.value() ?? fn.createAccumulator());
          if (next === undefined) throw new InvalidArgumentError('add() returned undefined instead of an accumulator');
          pane.update(next);
        },
        emit: (_key, accumulator, _context, out) => out.collect(fn.getResult(accumulator)),
      };
    }
    case 'process': {
      let fn: ProcessWindowFunction<unknown, unknown> | undefined;
      return {
        keepsRecords: true,
        open: (context) => {
          fn = contents.create();
          fn.open?.(context);
        },
        close: () => fn?.close?.(),
        into: (pane) => (record, key) => {
          select(key);
          pane.append(record);
        },
        // An array of its own: a snapshot may still have to write the state's.
        emit: (key, elements, context, out) =>
          fn?.process(key as never, context, [...(elements as readonly unknown[])], out),
      };
    }
  }
}

function reducing(
  { fn, sumOf }: Extract<WindowContents, { kind: 'reduce' }>,
  select: (key: unknown) => void,
): ContentsOfWindow {
  const reduce = (pane: Pane, record: unknown) => {
    const current = pane.value();
    let next = current === undefined ? record : fn(current, record);
    // The function may change what the state holds, but the record belongs to whoever emitted it.
    if (next === record && typeof next === 'object') next = copyRecord(next);
    pane.update(next);
  };
  return {
    keepsRecords: false,
    into: (pane, sums) => {
      if (sumOf === undefined) {
        return (record, key) => {
          select(key);
          reduce(pane, record);
        };
      }
      return summing(pane, { sumOf, sums, select, reduce });
    },
    emit: (_key, record, _context, out) => out.collect(record),
  };
}

/** The record that a pane holds of a key is nobody else's: sums change in it, and often it is a number alone. */
function summing(
  pane: Pane,
  spec: {
    readonly sumOf: string | number;
    readonly sums: PackedSums | undefined;
    readonly select: (key: unknown) => void;
    readonly reduce: (pane: Pane, record: unknown) => void;
  },
): (record: unknown, key: unknown) => void {
  const { sumOf, sums, select, reduce } = spec;
  return (record, key) => {
    const amount = (record as Record<string | number, unknown> | null | undefined)?.[sumOf];
    if (typeof amount === 'number') {
      if (sums?.usable === true) {
        if (typeof key === 'string') {
          if (sums.add(key, amount) !== undefined) return;
        } else if (typeof key === 'number' && sums.add(key + 0, amount) !== undefined) return; // -0 is the key 0
      }
      select(key);
      if (sums?.usable === true && (typeof key === 'string' || typeof key === 'number')) {
        if (sums.begin(typeof key === 'number' ? key + 0 : key, record)) return;
      }
      if (pane.addTo(sumOf, amount)) return;
    } else select(key);
    reduce(pane, record);
    if (sums?.usable === true) sums.pack();
  };
}
