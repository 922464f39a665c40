import { Packr, Unpackr } from 'msgpackr';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';

/**
 * Payloads as msgpack. Round-trips what messages between roles hold: bigint of any size, Uint8Array
 * (copied out, so that 20 bytes never keep a 60 MB message alive), Map, Set, Date, undefined, NaN.
 * Records are described inside each message, so no state is shared between the two sides.
 */
const OPTIONS = { useRecords: true, moreTypes: true, copyBuffers: true, useBigIntExtension: true } as const;

const packr = new Packr(OPTIONS);
const unpackr = new Unpackr(OPTIONS);

/** `what` names the message in errors, e.g. `request of taskmanager.submitTasks`. */
export function encodePayload(value: unknown, what: string): Buffer {
  try {
    return packr.pack(value);
  } catch (cause) {
    throw new InvalidArgumentError(`${what} holds a value that cannot be sent`, { cause });
  }
}

export function decodePayload(bytes: Uint8Array, what: string): unknown {
  try {
    return unpackr.unpack(bytes);
  } catch (cause) {
    throw new InvalidArgumentError(`${what} cannot be decoded`, { cause });
  }
}

export function assertPayloadSize(bytes: number, payloadBytesMax: number, what: string): void {
  if (bytes <= payloadBytesMax) return;
  throw new MillraceError('TOO_LARGE', `${what} has ${bytes} bytes; the limit is ${payloadBytesMax}`, {
    hint: 'Split the message, or raise the payload limit on both sides.',
  });
}

export const DEFAULT_PAYLOAD_BYTES_MAX = 64 * 1024 * 1024;
