import { UnavailableError } from '../kernel/errors.ts';
import type { ChannelMessage } from './channel-message.ts';
import type { DirectLine } from './direct-line.ts';
import type { InputChannel, InputChannelListener } from './input-channel.ts';
import type { Subpartition } from './subpartition.ts';

/**
 * Producer and consumer in one thread: messages stay in the producer's bounded queue until the
 * consumer takes them, so credits have nothing to do. The batches are the encoded ones, so that a
 * record means the same wherever its consumer happens to run.
 */
export class LocalInputChannel implements InputChannel {
  private closed = false;

  constructor(
    readonly description: string,
    private readonly subpartition: Subpartition,
    listener: InputChannelListener,
  ) {
    subpartition.attach({
      onData: () => {
        // It overtook in the producer's queue, which is also ours.
        const barrier = subpartition.overtaking;
        if (barrier !== undefined) listener.onBarrier?.(barrier, true);
        listener.onData();
      },
      onFailed: (reason) =>
        listener.onFailed(new UnavailableError(`${description} has ended: ${reason.message}`, { cause: reason })),
    });
  }

  get queued(): number {
    return 0;
  }

  get line(): DirectLine | undefined {
    return this.closed ? undefined : this.subpartition.line;
  }

  poll(): ChannelMessage | undefined {
    return this.closed ? undefined : this.subpartition.poll();
  }

  take(matches: Parameters<InputChannel['take']>[0]): ReturnType<InputChannel['take']> {
    return this.closed ? undefined : this.subpartition.take(matches);
  }

  processed(): void {
    // The message left the queue when it was polled.
  }

  close(): void {
    if (this.closed) return;
    this.subpartition.line?.close();
    this.closed = true;
    this.subpartition.detach();
  }
}
