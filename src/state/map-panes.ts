import type { KeyedStateBackend, MapState, Pane, Panes } from './ports.ts';

/** Panes over a map state of any backend: a time's keys are found by a look at all keys. */
export class MapPanes implements Panes {
  private readonly state: MapState<number, unknown>;
  private readonly seen = new Set<number>();

  constructor(
    private readonly backend: KeyedStateBackend,
    private readonly name: string,
  ) {
    this.state = backend.mapState(name);
    for (const key of backend.keys(name)) {
      backend.setCurrentKey(key);
      for (const time of this.state.keys()) this.seen.add(time);
    }
  }

  pane(time: number): Pane {
    this.seen.add(time);
    const { backend, name, state } = this;
    return {
      value: () => state.get(time),
      update: (value) => state.put(time, value),
      sums: () => undefined,
      addTo: (field, amount) => {
        const record = state.get(time) as Record<string | number, unknown> | undefined;
        const current = record?.[field];
        if (record === undefined || typeof current !== 'number') return false;
        record[field] = current + amount;
        state.put(time, record);
        return true;
      },
      append: (item) => {
        const items = (state.get(time) as unknown[] | undefined) ?? [];
        items.push(item);
        state.put(time, items);
      },
      *entries() {
        // All first: while a pane is read others may come to have keys.
        for (const key of [...backend.keys(name)]) {
          backend.setCurrentKey(key);
          const value = state.get(time);
          if (value !== undefined) yield [key, value];
        }
      },
    };
  }

  times(): readonly number[] {
    return [...this.seen];
  }

  drop(time: number): void {
    this.seen.delete(time);
    for (const key of [...this.backend.keys(this.name)]) {
      this.backend.setCurrentKey(key);
      this.state.remove(time);
    }
  }
}
