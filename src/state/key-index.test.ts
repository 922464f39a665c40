import { expect, test } from 'vitest';
import { Cell } from './cell-group.ts';
import { KeyIndex } from './key-index.ts';

test('keys are found, new, moved and deleted ones, while one Map becomes many', () => {
  const index = new KeyIndex<Cell>();
  const held = new Map<string, Cell>();
  const add = (key: string) => {
    const cell = new Cell(key, 0, 0);
    index.add(key, cell);
    held.set(key, cell);
  };
  const check = (key: string) => expect(index.get(key)).toBe(held.get(key));
  // Across the limit of 65,536, through the move, and beyond.
  for (let n = 0; n < 100_000; n++) {
    add(`key ${n}`);
    if (n % 7 === 0) {
      const gone = `key ${Math.floor(n / 2)}`;
      index.delete(gone);
      held.delete(gone);
      check(gone);
      // Once more as a new one, now and then.
      if (n % 14 === 0) add(gone);
    }
    if (n % 97 === 0) for (const probe of [0, n >> 2, n >> 1, n - 1, n, n + 1]) check(`key ${probe}`);
  }
  for (let n = 0; n < 100_000; n++) if (index.get(`key ${n}`) !== held.get(`key ${n}`)) check(`key ${n}`);
});
