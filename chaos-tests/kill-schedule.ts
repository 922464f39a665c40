import { type Random, SeededRandom } from '../src/kernel/random.ts';

/** Who dies, with SIGKILL. */
export type Victim =
  | 'leader'
  /** Any living master: the leader or a standby. */
  | 'master'
  | 'worker'
  | 'leader and worker'
  | 'all workers'
  | 'all masters';

/** When, as something that is seen, so that a slow machine plays the same schedule as a quick one. */
export type Moment =
  /** This part of the output is committed, 0 to 1. */
  | { readonly kind: 'progress'; readonly part: number }
  /** A leader was elected since the last kill: it is busy recovering. */
  | { readonly kind: 'election'; readonly delayMs: number }
  /** The tasks were sent out again since the last kill: they are just starting. */
  | { readonly kind: 'deployment'; readonly delayMs: number }
  /** Since the last kill, whatever has happened meanwhile. */
  | { readonly kind: 'delay'; readonly delayMs: number };

export interface Kill {
  readonly victim: Victim;
  readonly when: Moment;
  /** Chooses among several, 0 to 1. */
  readonly pick: number;
  /** Another process takes the place of each dead one, as a supervisor would see to. */
  readonly replaceAfterMs: number;
}

export interface KillSchedule {
  readonly seed: number;
  readonly kills: readonly Kill[];
}

/** The first kill leaves time for a checkpoint, the last one for something to recover. */
const FIRST_PART = 0.1;
const LAST_PART = 0.8;
const CHOICES: readonly Victim[] = ['leader', 'leader', 'master', 'worker', 'worker', 'leader and worker'];
const RARE: readonly Victim[] = ['all workers', 'all masters'];
const RARE_CHANCE = 0.2;
/** A second blow while the cluster is still busy with the first. */
const BLOW_CHANCE = 0.5;
/** A leader that dies while the job ends, or just after. */
const LATE_CHANCE = 0.3;

/**
 * What is killed when, decided by the seed alone.
 *
 * Two or three kills at rising parts of the output, each perhaps followed by a second blow while the
 * cluster recovers from the first; at least one takes the leader away. Perhaps the leader dies once more
 * while the job ends. Every dead process is replaced, so that the job can always end.
 */
export function makeKillSchedule(seed: number): KillSchedule {
  const random = new SeededRandom(seed);
  const count = 2 + random.int(2);
  const leaderless = random.int(count);
  const kills: Kill[] = [];
  for (let i = 0; i < count; i++) {
    const victim = i === leaderless ? 'leader' : anyVictim(random);
    // One kill in each of `count` equal parts of the way.
    const part = FIRST_PART + ((LAST_PART - FIRST_PART) * (i + random.next())) / count;
    kills.push(kill(random, victim, { kind: 'progress', part: Math.round(part * 100) / 100 }));
    if (random.next() < BLOW_CHANCE) kills.push(secondBlow(random, victim));
  }
  if (random.next() < LATE_CHANCE) {
    const part = Math.round((0.95 + 0.05 * random.next()) * 1_000) / 1_000;
    kills.push(kill(random, 'leader', { kind: 'progress', part }));
  }
  return { seed, kills };
}

/** Whether the job may be quicker than this kill. */
export function isLate({ when }: Kill): boolean {
  return when.kind === 'progress' && when.part > LAST_PART;
}

function anyVictim(random: Random): Victim {
  return random.next() < RARE_CHANCE ? choose(random, RARE) : choose(random, CHOICES);
}

function secondBlow(random: Random, first: Victim): Kill {
  const victim = choose(random, ['leader', 'leader', 'worker', 'master'] as const);
  const delayMs = random.int(800);
  // After the death of a mere worker there is no election to wait for.
  const elects = first === 'leader' || first === 'leader and worker' || first === 'all masters';
  const kinds = elects ? (['election', 'deployment', 'delay'] as const) : (['delay'] as const);
  return kill(random, victim, { kind: choose(random, kinds), delayMs });
}

function kill(random: Random, victim: Victim, when: Moment): Kill {
  return { victim, when, pick: random.next(), replaceAfterMs: random.int(1_500) };
}

function choose<T>(random: Random, values: readonly T[]): T {
  return values[random.int(values.length)] as T;
}

/** One line for tables and failures. */
export function showSchedule({ kills }: KillSchedule): string {
  return kills.map((kill) => `${kill.victim} ${showMoment(kill.when)}`).join(', ');
}

export function showMoment(when: Moment): string {
  switch (when.kind) {
    case 'progress':
      return `at ${Number((when.part * 100).toFixed(1))} %`;
    case 'election':
      return `${when.delayMs} ms after the election`;
    case 'deployment':
      return `${when.delayMs} ms after the redeployment`;
    case 'delay':
      return `${when.delayMs} ms later`;
  }
}
