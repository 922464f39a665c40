import type { CheckpointBarrier } from '../exchange/channel-message.ts';

/**
 * When a task with several inputs takes its snapshot: decisions only, no channels.
 *
 *   A1. A checkpoint is triggered at most once, when its barrier has come on every channel that is
 *       still open. Triggered ids strictly rise.
 *   A2. Exactly once: between a channel's barrier and the trigger nothing more is taken from it.
 *   A3. A barrier of a newer checkpoint ends the alignment of an older one: channels are in order,
 *       so the older barrier will never come on that channel.
 *   A4. Aborted and late barriers change nothing.
 *   A5. A checkpoint may be triggered before all its barriers have come (it overtakes): what still comes on a
 *       channel before its barrier is then part of the checkpoint, until the last barrier or the end has come.
 */
export type AlignerEffect =
  | { readonly kind: 'block'; readonly channel: number }
  | { readonly kind: 'unblock-all' }
  | { readonly kind: 'trigger'; readonly barrier: CheckpointBarrier; readonly alignmentMs: number }
  /** Snapshot now; records of the `pending` channels are stored until their barriers come. */
  | {
      readonly kind: 'overtake';
      readonly barrier: CheckpointBarrier;
      readonly pending: ReadonlySet<number>;
      readonly alignmentMs: number;
    }
  /** The barrier of an overtaking checkpoint, or the end, has come on a pending channel. */
  | { readonly kind: 'arrived'; readonly channel: number }
  | { readonly kind: 'captured' }
  | { readonly kind: 'capture-dropped'; readonly reason: string }
  | { readonly kind: 'superseded'; readonly checkpointId: number; readonly by: number };

export interface BarrierAligner {
  /** `overtook`: it came past records of its channel. */
  barrier(channel: number, barrier: CheckpointBarrier, nowMs: number, overtook?: boolean): readonly AlignerEffect[];
  /** The checkpoint has waited for its barriers for long enough: from now on it overtakes. */
  timedOut?(checkpointId: number, nowMs: number): readonly AlignerEffect[];
  /** The channel's producer has finished: no barrier will come from it. */
  ended(channel: number, nowMs: number): readonly AlignerEffect[];
  aborted(checkpointId: number): readonly AlignerEffect[];
  /** Nothing up to this id will complete: their barriers change nothing any more. */
  abortedUpTo(checkpointId: number): readonly AlignerEffect[];
}

/** Ids remembered as aborted before their barriers came. More are in flight only if a master misbehaves. */
const ABORTED_MAX = 256;
/** Checkpoints tracked at once when nothing is blocked. */
const TRACKED_MAX = 64;
const NOTHING: readonly AlignerEffect[] = [];

interface Alignment {
  readonly barrier: CheckpointBarrier;
  readonly received: Set<number>;
  readonly startedMs: number;
}

/** What both ways of aligning share: open channels, and ids that need no further thought. */
class AlignerMemory {
  readonly open: Set<number>;
  private settledUpTo = 0;
  private readonly abortedIds = new Set<number>();

  constructor(channels: number) {
    this.open = new Set(Array.from({ length: channels }, (_, i) => i));
  }

  isSettled(checkpointId: number): boolean {
    return checkpointId <= this.settledUpTo || this.abortedIds.has(checkpointId);
  }

  settle(checkpointId: number): void {
    this.settledUpTo = Math.max(this.settledUpTo, checkpointId);
    for (const id of this.abortedIds) if (id <= this.settledUpTo) this.abortedIds.delete(id);
  }

  abort(checkpointId: number): void {
    if (checkpointId <= this.settledUpTo) return;
    this.abortedIds.add(checkpointId);
    if (this.abortedIds.size > ABORTED_MAX) this.settle(Math.min(...this.abortedIds));
  }

  isComplete(alignment: Alignment): boolean {
    for (const channel of this.open) if (!alignment.received.has(channel)) return false;
    return true;
  }
}

/** Blocks channels that are ahead, so that the snapshot holds exactly what came before the barriers. */
export class ExactlyOnceAligner implements BarrierAligner {
  private readonly memory: AlignerMemory;
  private current: Alignment | undefined;
  /** The checkpoint that overtakes, and the channels whose barriers have not come. A5 */
  private capture: { readonly checkpointId: number; readonly pending: Set<number> } | undefined;

  constructor(channels: number) {
    this.memory = new AlignerMemory(channels);
  }

  barrier(channel: number, barrier: CheckpointBarrier, nowMs: number, overtook = false): readonly AlignerEffect[] {
    const id = barrier.checkpointId;
    if (this.capture?.checkpointId === id) return this.arrived(channel);
    if (this.memory.isSettled(id)) return NOTHING; // A4
    const effects: AlignerEffect[] = [];
    if (this.capture !== undefined) {
      const { checkpointId } = this.capture;
      this.capture = undefined;
      effects.push({ kind: 'capture-dropped', reason: `checkpoint ${id} began before ${checkpointId} was complete` });
    }
    if (this.current !== undefined && id !== this.current.barrier.checkpointId) {
      const older = this.current.barrier.checkpointId;
      if (id < older) return NOTHING; // A4
      this.current = undefined;
      this.memory.settle(older);
      effects.push({ kind: 'superseded', checkpointId: older, by: id }, { kind: 'unblock-all' }); // A3
    }
    this.current ??= { barrier, received: new Set(), startedMs: nowMs };
    this.current.received.add(channel);
    if (overtook) effects.push(...this.overtake(this.current, nowMs));
    else if (this.memory.isComplete(this.current)) effects.push(...this.complete(this.current, nowMs));
    else effects.push({ kind: 'block', channel }); // A2
    return effects;
  }

  timedOut(checkpointId: number, nowMs: number): readonly AlignerEffect[] {
    return this.current?.barrier.checkpointId === checkpointId ? this.overtake(this.current, nowMs) : NOTHING;
  }

  ended(channel: number, nowMs: number): readonly AlignerEffect[] {
    this.memory.open.delete(channel);
    const arrived = this.capture?.pending.has(channel) === true ? this.arrived(channel) : NOTHING;
    const { current } = this;
    if (current === undefined || !this.memory.isComplete(current)) return arrived;
    return [...arrived, ...this.complete(current, nowMs)];
  }

  aborted(checkpointId: number): readonly AlignerEffect[] {
    this.memory.abort(checkpointId);
    if (this.capture?.checkpointId === checkpointId) {
      this.capture = undefined;
      return [{ kind: 'capture-dropped', reason: 'the checkpoint was aborted' }];
    }
    if (this.current?.barrier.checkpointId !== checkpointId) return NOTHING;
    this.current = undefined;
    return [{ kind: 'unblock-all' }];
  }

  abortedUpTo(checkpointId: number): readonly AlignerEffect[] {
    this.memory.settle(checkpointId);
    const effects: AlignerEffect[] = [];
    if (this.capture !== undefined && this.capture.checkpointId <= checkpointId) {
      this.capture = undefined;
      effects.push({ kind: 'capture-dropped', reason: 'the checkpoint was aborted' });
    }
    if (this.current === undefined || this.current.barrier.checkpointId > checkpointId) return effects;
    this.current = undefined;
    return [...effects, { kind: 'unblock-all' }];
  }

  private overtake({ barrier, received, startedMs }: Alignment, nowMs: number): readonly AlignerEffect[] {
    const { checkpointId } = barrier;
    this.current = undefined;
    this.memory.settle(checkpointId);
    const pending = new Set([...this.memory.open].filter((channel) => !received.has(channel)));
    const effects: AlignerEffect[] = [
      { kind: 'unblock-all' },
      { kind: 'overtake', barrier, pending: new Set(pending), alignmentMs: nowMs - startedMs }, // A1
    ];
    if (pending.size > 0) this.capture = { checkpointId, pending };
    else effects.push({ kind: 'captured' });
    return effects;
  }

  private arrived(channel: number): readonly AlignerEffect[] {
    const { capture } = this;
    if (capture?.pending.delete(channel) !== true) return NOTHING;
    if (capture.pending.size > 0) return [{ kind: 'arrived', channel }];
    this.capture = undefined;
    return [{ kind: 'arrived', channel }, { kind: 'captured' }];
  }

  private complete({ barrier, startedMs }: Alignment, nowMs: number): readonly AlignerEffect[] {
    this.current = undefined;
    this.memory.settle(barrier.checkpointId);
    return [{ kind: 'unblock-all' }, { kind: 'trigger', barrier, alignmentMs: nowMs - startedMs }]; // A1
  }
}

/** Only counts barriers: records behind a barrier may be in the snapshot too, and are then seen again after a restore. */
export class AtLeastOnceTracker implements BarrierAligner {
  private readonly memory: AlignerMemory;
  private readonly tracked = new Map<number, Alignment>();

  constructor(channels: number) {
    this.memory = new AlignerMemory(channels);
  }

  barrier(channel: number, barrier: CheckpointBarrier, nowMs: number): readonly AlignerEffect[] {
    const id = barrier.checkpointId;
    if (this.memory.isSettled(id)) return NOTHING; // A4
    let alignment = this.tracked.get(id);
    if (alignment === undefined) {
      alignment = { barrier, received: new Set(), startedMs: nowMs };
      this.tracked.set(id, alignment);
    }
    alignment.received.add(channel);
    if (this.memory.isComplete(alignment)) return this.complete(alignment, nowMs);
    return this.tracked.size > TRACKED_MAX ? this.dropBelow(id) : NOTHING;
  }

  ended(channel: number, nowMs: number): readonly AlignerEffect[] {
    this.memory.open.delete(channel);
    // The newest that is complete now; it supersedes what is older.
    const complete = [...this.tracked.values()]
      .filter((alignment) => this.memory.isComplete(alignment))
      .sort((a, b) => b.barrier.checkpointId - a.barrier.checkpointId)[0];
    return complete === undefined ? NOTHING : this.complete(complete, nowMs);
  }

  aborted(checkpointId: number): readonly AlignerEffect[] {
    this.memory.abort(checkpointId);
    this.tracked.delete(checkpointId);
    return NOTHING;
  }

  abortedUpTo(checkpointId: number): readonly AlignerEffect[] {
    this.memory.settle(checkpointId);
    for (const id of this.tracked.keys()) if (id <= checkpointId) this.tracked.delete(id);
    return NOTHING;
  }

  private complete({ barrier, startedMs }: Alignment, nowMs: number): readonly AlignerEffect[] {
    this.tracked.delete(barrier.checkpointId);
    const dropped = this.dropBelow(barrier.checkpointId);
    this.memory.settle(barrier.checkpointId);
    return [...dropped, { kind: 'trigger', barrier, alignmentMs: nowMs - startedMs }]; // A1
  }

  private dropBelow(by: number): readonly AlignerEffect[] {
    const effects: AlignerEffect[] = [];
    for (const id of this.tracked.keys()) {
      if (id >= by) continue;
      this.tracked.delete(id);
      this.memory.abort(id);
      effects.push({ kind: 'superseded', checkpointId: id, by });
    }
    return effects;
  }
}
