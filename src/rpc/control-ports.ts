import type { Random } from '../kernel/random.ts';

/**
 * Where control ports come from when none is configured. Below the range from which systems take ports for
 * outgoing connections (Linux: 32768 to 60999, IANA: from 49152), so that the port of a process that has died is not
 * taken by whoever connects somewhere next: a standby that looks there would wait for a stranger's answer.
 */
export const CONTROL_PORTS = { first: 20_000, last: 29_999 } as const;

const TRIES_MAX = 200;

/** Ports to try, one after the other: from a random place on, so that processes that start together rarely meet. */
export function* controlPorts(random: Random): Generator<number> {
  const count = CONTROL_PORTS.last - CONTROL_PORTS.first + 1;
  const start = random.int(count);
  for (let i = 0; i < TRIES_MAX; i++) yield CONTROL_PORTS.first + ((start + i * 7) % count);
}
