import type { DataAddress } from '../contracts/task.ts';
import type { Frame } from './frame.ts';

/**
 * A two-way pipe of frames to one peer: in order, each once, until it is lost. TCP, with TLS or without,
 * between processes; a MessagePort between the slots of one.
 */
export interface Wire {
  /** For logs and errors, e.g. `10.0.0.7:41234`. */
  readonly peer: string;
  /** Always takes the frame. False: enough is under way, wait for `onDrain` before sending more records. */
  send(frame: Frame): boolean;
  /** Closes at once. `onClosed` follows. Idempotent. */
  destroy(reason: Error): void;
}

/** What the owner of a wire listens to. Calls never come before the wire was handed over. */
export interface WireHandlers {
  /** A throw ends the wire with that error. */
  onFrame(frame: Frame): void;
  onDrain(): void;
  /** Once, last. `error` is undefined when the peer closed in good order. */
  onClosed(error: Error | undefined): void;
}

export interface Transport {
  /** Resolves once both sides have agreed on the protocol. Rejects with `UNAVAILABLE` or `UNSUPPORTED_VERSION`. */
  connect(address: DataAddress, attach: (wire: Wire) => WireHandlers, signal: AbortSignal): Promise<Wire>;
  listen(bind: DataAddress, attach: (wire: Wire) => WireHandlers): Promise<TransportServer>;
}

export interface TransportServer {
  /** With the port that was bound. */
  readonly address: DataAddress;
  /** Stops listening and destroys every wire. Idempotent. */
  close(): Promise<void>;
}
