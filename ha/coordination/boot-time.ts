import { readFile } from 'node:fs/promises';

/** CLOCK_MONOTONIC, which all processes of a machine share; `performance.now` has an origin of each process. */
export function systemMonotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1_000;
}

/**
 * Changes when the machine restarts. Where the kernel has none, a constant: there a restart is seen
 * by deadlines that lie further ahead than their TTL (see `leaseExpired`).
 */
export async function readBootId(): Promise<string> {
  try {
    return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  } catch {
    // No such file outside Linux; nothing to report.
    return 'unknown';
  }
}
