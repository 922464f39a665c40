import { expect, test } from 'vitest';
import type { CheckpointBarrier } from '../exchange/channel-message.ts';
import { type AlignerEffect, AtLeastOnceTracker, ExactlyOnceAligner } from './barrier-aligner.ts';

const barrier = (checkpointId: number): CheckpointBarrier => ({
  checkpointId,
  timestampMs: 0,
  options: { kind: 'CHECKPOINT', aligned: true, alignedTimeoutMs: 0 },
});

/** Effects as short words. */
function words(effects: readonly AlignerEffect[]): string[] {
  return effects.map((effect) => {
    switch (effect.kind) {
      case 'block':
        return `block ${effect.channel}`;
      case 'trigger':
        return `trigger ${effect.barrier.checkpointId} after ${effect.alignmentMs}`;
      case 'superseded':
        return `superseded ${effect.checkpointId} by ${effect.by}`;
      default:
        return effect.kind;
    }
  });
}

test('a channel is blocked from its barrier until the last channel has sent its own', () => {
  const aligner = new ExactlyOnceAligner(3);
  expect(words(aligner.barrier(1, barrier(7), 100))).toEqual(['block 1']);
  expect(words(aligner.barrier(0, barrier(7), 130))).toEqual(['block 0']);
  expect(words(aligner.barrier(2, barrier(7), 150))).toEqual(['unblock-all', 'trigger 7 after 50']);
});

test('a task with one input snapshots at once', () => {
  expect(words(new ExactlyOnceAligner(1).barrier(0, barrier(1), 5))).toEqual(['unblock-all', 'trigger 1 after 0']);
  expect(words(new AtLeastOnceTracker(1).barrier(0, barrier(1), 5))).toEqual(['trigger 1 after 0']);
});

test('a newer barrier ends an older alignment, and what is late of the older one changes nothing', () => {
  const aligner = new ExactlyOnceAligner(3);
  aligner.barrier(0, barrier(1), 0);
  expect(words(aligner.barrier(1, barrier(2), 10))).toEqual(['superseded 1 by 2', 'unblock-all', 'block 1']);
  expect(words(aligner.barrier(2, barrier(1), 11))).toEqual([]);
  expect(words(aligner.barrier(0, barrier(2), 12))).toEqual(['block 0']);
  expect(words(aligner.barrier(2, barrier(2), 13))).toEqual(['unblock-all', 'trigger 2 after 3']);
});

test('an aborted checkpoint unblocks and its other barriers are ignored', () => {
  const aligner = new ExactlyOnceAligner(2);
  aligner.barrier(0, barrier(1), 0);
  expect(words(aligner.aborted(1))).toEqual(['unblock-all']);
  expect(words(aligner.barrier(1, barrier(1), 0))).toEqual([]);
  aligner.aborted(2);
  expect(words(aligner.barrier(0, barrier(2), 0))).toEqual([]);
  expect(words(aligner.barrier(0, barrier(3), 0))).toEqual(['block 0']);
  expect(words(aligner.aborted(2))).toEqual([]);
  expect(words(aligner.barrier(1, barrier(3), 0))).toEqual(['unblock-all', 'trigger 3 after 0']);
});

test('a channel whose producer has finished is not waited for', () => {
  const aligner = new ExactlyOnceAligner(2);
  aligner.barrier(0, barrier(1), 0);
  expect(words(aligner.ended(1, 4))).toEqual(['unblock-all', 'trigger 1 after 4']);
  expect(words(aligner.barrier(0, barrier(2), 9))).toEqual(['unblock-all', 'trigger 2 after 0']);
});

test('at-least-once never blocks, follows several checkpoints at once, and the newer drops the older', () => {
  const tracker = new AtLeastOnceTracker(2);
  expect(words(tracker.barrier(0, barrier(1), 0))).toEqual([]);
  expect(words(tracker.barrier(0, barrier(2), 1))).toEqual([]);
  expect(words(tracker.barrier(1, barrier(2), 5))).toEqual(['superseded 1 by 2', 'trigger 2 after 4']);
  expect(words(tracker.barrier(1, barrier(1), 6))).toEqual([]);
  tracker.barrier(0, barrier(3), 7);
  expect(words(tracker.ended(1, 8))).toEqual(['trigger 3 after 1']);
});

test('everything up to an id given up at once: nobody waits for those barriers, and a newer checkpoint goes on', () => {
  const aligner = new ExactlyOnceAligner(2);
  expect(words(aligner.barrier(0, barrier(7), 0))).toEqual(['block 0']);
  expect(words(aligner.abortedUpTo(9))).toEqual(['unblock-all']);
  for (const late of [7, 8, 9]) expect(words(aligner.barrier(1, barrier(late), 0))).toEqual([]);
  expect(words(aligner.barrier(0, barrier(10), 0))).toEqual(['block 0']);
  // What comes late does not touch what is newer.
  expect(words(aligner.abortedUpTo(9))).toEqual([]);
  expect(words(aligner.barrier(1, barrier(10), 5))).toEqual(['unblock-all', 'trigger 10 after 5']);
  const tracker = new AtLeastOnceTracker(2);
  tracker.barrier(0, barrier(7), 0);
  expect(words(tracker.abortedUpTo(9))).toEqual([]);
  expect(words(tracker.barrier(1, barrier(7), 0))).toEqual([]);
});
