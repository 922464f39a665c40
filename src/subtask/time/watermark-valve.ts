import { MAX_WATERMARK, MIN_WATERMARK } from './element.ts';

/** What a task passes on when something has come on one of its channels. */
export type ValveOutput =
  | { readonly kind: 'watermark'; readonly timestampMs: number }
  /** Nothing says how far event time is: consumers go on without this task. */
  | { readonly kind: 'idle' };

interface Channel {
  watermarkMs: number;
  idle: boolean;
}

/**
 * The watermark of a task with several inputs.
 *
 *   V1. It is the least over all channels that are not idle, and it never goes back.
 *   V2. An idle channel does not hold the others up; its next watermark makes it count again.
 *   V3. When the last channel becomes idle, the watermark goes to the greatest of them first: what
 *       they were held up for by each other will not come.
 *   V4. A channel that has ended counts as being at the maximum.
 */
export class WatermarkValve {
  private readonly channels: Channel[];
  private currentMs = MIN_WATERMARK;
  private idle = false;

  constructor(channels: number) {
    this.channels = Array.from({ length: channels }, () => ({ watermarkMs: MIN_WATERMARK, idle: false }));
  }

  watermark(index: number, timestampMs: number): readonly ValveOutput[] {
    const channel = this.channels[index] as Channel;
    channel.idle = false;
    if (timestampMs > channel.watermarkMs) channel.watermarkMs = timestampMs;
    return this.settle();
  }

  markIdle(index: number): readonly ValveOutput[] {
    const channel = this.channels[index] as Channel;
    if (channel.watermarkMs === MAX_WATERMARK) return NOTHING;
    channel.idle = true;
    return this.settle();
  }

  private settle(): readonly ValveOutput[] {
    let least = MAX_WATERMARK;
    let greatest = MIN_WATERMARK;
    let active = false;
    for (const { watermarkMs, idle } of this.channels) {
      if (watermarkMs > greatest) greatest = watermarkMs;
      if (idle) continue;
      active = true;
      if (watermarkMs < least) least = watermarkMs;
    }
    // Channels that have ended are not idle, but they alone must not take event time to its end
    // while idle ones may still wake up.
    const onlyEnded = active && least === MAX_WATERMARK && this.channels.some(({ idle }) => idle);
    if (!active || onlyEnded) return this.allIdle(onlyEnded ? this.greatestIdle() : greatest);
    const wasIdle = this.idle;
    this.idle = false;
    if (least > this.currentMs) {
      this.currentMs = least;
      return [{ kind: 'watermark', timestampMs: least }];
    }
    // Consumers must learn that they have to wait for us again.
    return wasIdle && this.currentMs > MIN_WATERMARK ? [{ kind: 'watermark', timestampMs: this.currentMs }] : NOTHING;
  }

  private allIdle(greatest: number): readonly ValveOutput[] {
    const outputs: ValveOutput[] = [];
    if (greatest > this.currentMs) {
      this.currentMs = greatest;
      outputs.push({ kind: 'watermark', timestampMs: greatest });
    }
    if (!this.idle) {
      this.idle = true;
      outputs.push({ kind: 'idle' });
    }
    return outputs; // V3
  }

  private greatestIdle(): number {
    return this.channels.reduce(
      (most, { watermarkMs, idle }) => (idle ? Math.max(most, watermarkMs) : most),
      -Infinity,
    );
  }
}

const NOTHING: readonly ValveOutput[] = [];
