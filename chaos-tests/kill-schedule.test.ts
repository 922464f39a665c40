import { expect, test } from 'vitest';
import { isLate, makeKillSchedule, showSchedule, type Victim } from './kill-schedule.ts';

const many = Array.from({ length: 500 }, (_, seed) => makeKillSchedule(seed));

test('the seed alone decides', () => {
  expect(makeKillSchedule(7)).toEqual(makeKillSchedule(7));
  expect(new Set(many.map(showSchedule)).size).toBeGreaterThan(450);
});

test('every schedule kills a leader, at rising parts of the output, with time left to recover', () => {
  for (const { kills } of many) {
    expect(kills.some(({ victim }) => victim === 'leader')).toBe(true);
    const parts = kills.flatMap((kill) => (kill.when.kind === 'progress' && !isLate(kill) ? [kill.when.part] : []));
    expect(parts).toEqual([...parts].sort((a, b) => a - b));
    expect(parts[0]).toBeGreaterThanOrEqual(0.1);
    expect(parts.at(-1)).toBeLessThanOrEqual(0.8);
  }
});

test('an election or redeployment is waited for only after a kill that must bring one about', () => {
  const bringsElection: readonly Victim[] = ['leader', 'leader and worker', 'all masters'];
  for (const { kills } of many) {
    kills.forEach(({ when }, i) => {
      if (when.kind === 'election' || when.kind === 'deployment')
        expect(bringsElection).toContain(kills[i - 1]?.victim);
    });
  }
});

test('some kill the leader while the job ends, as the last thing', () => {
  const late = many.filter(({ kills }) => kills.some(isLate));
  expect(late.length).toBeGreaterThan(100);
  expect(late.length).toBeLessThan(200);
  for (const { kills } of late) expect(kills.findIndex(isLate)).toBe(kills.length - 1);
});

test('every kind of victim and of moment comes up', () => {
  const all = many.flatMap(({ kills }) => kills);
  expect(new Set(all.map(({ victim }) => victim)).size).toBe(6);
  expect(new Set(all.map(({ when }) => when.kind)).size).toBe(4);
});
