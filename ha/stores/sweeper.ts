import type { LeaderContender, Leadership } from '../../src/contracts/leadership.ts';
import { every, type Timer } from '../../src/kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import { BackgroundTasks, type Closeable } from '../../src/kernel/lifecycle.ts';
import { chunks } from './fenced-writer.ts';
import { collectReferences, type MetadataCache, type References } from './references.ts';
import { POINT_DEADLINE_MS, type StoreDeps } from './store-deps.ts';

export interface SweeperOptions {
  /** `gc.grace`: an object that nothing points to is removed when it is older. */
  readonly graceMs: number;
  /** `gc.interval`. */
  readonly intervalMs: number;
  /** Most objects removed in one pass (default 5,000); the rest waits for the next. */
  readonly deletionsMax?: number;
}

export interface SweepReport {
  readonly listed: number;
  readonly removed: number;
  /** True when the pass stopped at its bound: there may be more. */
  readonly more: boolean;
}

/** Margin over the time in which a writer must point to its object, for retries and clocks. */
const GRACE_MIN_MS = 2 * POINT_DEADLINE_MS;
const DELETE_CHUNK = 500;
const DELETIONS_MAX = 5_000;
const PROBE = new TextEncoder().encode('what time is it?\n');

/**
 * Removes objects that nothing points to.
 *
 * Invariants:
 *   S1. No referenced object is removed. Order makes it so: ages are listed first, references are
 *       read afterwards, then leadership is confirmed, then what was listed, old, and not referenced
 *       goes. An object that gets its pointer later would have to be pointed to by a writer that
 *       took longer than the grace, and writers give up long before (`POINT_DEADLINE_MS`, and for
 *       state the checkpoint timeout); an object's name is never used again.
 *   S2. Ages are by the object store's own clock alone: a probe object tells its present time.
 *   S3. What cannot be read protects all that it could have pointed to.
 */
export class Sweeper implements LeaderContender, Closeable {
  private readonly tasks: BackgroundTasks;
  private term: { readonly leadership: Leadership; readonly timer: Timer } | undefined;
  private paused = false;
  private sweeping = false;

  constructor(
    private readonly deps: StoreDeps,
    private readonly options: SweeperOptions,
  ) {
    if (options.graceMs < GRACE_MIN_MS)
      throw new MillraceError(
        'CONFIGURATION',
        `gc.grace (${options.graceMs} ms) must be at least ${GRACE_MIN_MS} ms: writers may take that long to point to an object`,
      );
    this.tasks = new BackgroundTasks(deps.log);
  }

  granted(leadership: Leadership): void {
    this.stop();
    this.paused = false;
    this.term = { leadership, timer: every(this.deps.clock, this.options.intervalMs, () => this.tick(leadership)) };
  }

  suspended(): void {
    this.paused = true;
  }

  resumed(): void {
    this.paused = false;
  }

  revoked(): void {
    this.stop();
  }

  async close(): Promise<void> {
    this.stop();
    await this.tasks.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** One pass. Rejects when a store is away or `token` no longer leads; then nothing, or less, was removed. */
  async sweep(token: FencingToken): Promise<SweepReport> {
    const { keys, writer, objects } = this.deps;
    const nowMs = await this.storeNowMs(token);
    const metadata: MetadataCache = new Map();
    const before = await collectReferences(this.deps, metadata);
    const removable = (key: string, references: References) =>
      !references.keys.has(key) && ![...references.protectedPrefixes].some((prefix) => key.startsWith(prefix));
    const candidates: string[] = [];
    const max = this.options.deletionsMax ?? DELETIONS_MAX;
    let listed = 0;
    // Probes of passes that were cut short are swept like everything else.
    for (const prefix of [keys.allJobObjects, keys.allSavepoints, keys.allJarObjects, keys.sweepProbes]) {
      if (candidates.length >= max) break;
      for await (const object of objects.list(prefix)) {
        listed++;
        if (nowMs - object.modifiedMs > this.graceOf(object.key, before) && removable(object.key, before))
          candidates.push(object.key);
        if (candidates.length >= max) break;
      }
    }
    if (candidates.length === 0) return { listed, removed: 0, more: false };
    // S1: only what is unreferenced after the listing as well may go. The first look kept the list short.
    const after = await collectReferences(this.deps, metadata);
    const doomed = candidates.filter((key) => removable(key, after));
    await writer.confirm(token);
    for (const part of chunks(doomed, DELETE_CHUNK)) await objects.delete(part);
    return { listed, removed: doomed.length, more: candidates.length >= max };
  }

  private graceOf(key: string, references: References): number {
    const { keys } = this.deps;
    const prefix = keys.jobPrefixOfObject(key);
    const timeoutMs = key.startsWith(keys.allSavepoints)
      ? Math.max(0, ...references.checkpointTimeouts.values())
      : references.checkpointTimeouts.get(prefix ?? '');
    // State may wait for the slowest subtask of its checkpoint before anything points to it.
    return Math.max(this.options.graceMs, timeoutMs === undefined ? 0 : timeoutMs + POINT_DEADLINE_MS);
  }

  /** S2: what time it is for the object store. */
  private async storeNowMs(token: FencingToken): Promise<number> {
    const { keys, objects, writer } = this.deps;
    const key = `${keys.sweepProbes}probe-${token}-${writer.newWriteId()}`;
    await objects.put(key, PROBE);
    try {
      for await (const object of objects.list(key)) if (object.key === key) return object.modifiedMs;
    } finally {
      await objects.delete([key]);
    }
    throw new MillraceError('UNAVAILABLE', `${objects.description} does not list an object that it has just stored`);
  }

  private tick(leadership: Leadership): void {
    if (this.sweeping || this.paused || !leadership.isValid()) return;
    this.sweeping = true;
    this.tasks.run('sweep', () => this.sweepAndLog(leadership).finally(() => (this.sweeping = false)));
  }

  private async sweepAndLog(leadership: Leadership): Promise<void> {
    const { log } = this.deps;
    try {
      const report = await this.sweep(leadership.token);
      if (report.removed > 0) log.info({ ...report, token: String(leadership.token) }, 'objects swept');
    } catch (error) {
      // The next pass tries again; a fenced one was this term's last.
      log.warn({ err: asError(error), token: String(leadership.token) }, 'sweep not finished');
      if (isMillraceError(error, 'FENCED')) leadership.abdicate('a sweep was fenced');
    }
  }

  private stop(): void {
    this.term?.timer.cancel();
    this.term = undefined;
  }
}
