import { expect, test } from 'vitest';
import { rehearseTakeover } from './rehearse.ts';

test('all that is rehearsed are messages as they are: one that is refused would leave its schema half compiled', () => {
  expect(rehearseTakeover()).toBe(10);
});
