import { createHash } from 'node:crypto';
import type { Digest } from './ids.ts';

/** SHA-256 of `bytes` as 64 lower-case hex digits. */
export function digestOf(bytes: Uint8Array | string): Digest {
  return createHash('sha256').update(bytes).digest('hex') as Digest;
}

/** The first 32 hex digits of SHA-256 over the parts: for stable ids. The separator keeps parts apart. */
export function stableId(...parts: readonly (string | number)[]): string {
  return createHash('sha256').update(parts.join('\u0000')).digest('hex').slice(0, 32);
}
