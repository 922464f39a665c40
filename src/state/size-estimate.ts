import type { CanonicalKey } from './key-group-hash.ts';
import { approximateBytes, keyBytes } from './state-value.ts';

/** One value in this many is looked at. */
const SAMPLE_EVERY = 64;

/** How large values are on average, from a sample that follows changes. */
export class SizeEstimate {
  meanBytes = 0;
  private seen = 0;

  sample(key: CanonicalKey | undefined, value: unknown): void {
    if (this.seen++ % SAMPLE_EVERY !== 0) return;
    const bytes = (key === undefined ? 0 : keyBytes(key)) + approximateBytes(value);
    this.meanBytes += this.seen === 1 ? bytes : (bytes - this.meanBytes) / 16;
  }
}
