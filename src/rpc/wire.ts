import { Metadata } from '@grpc/grpc-js';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../kernel/ids.ts';

/** How a call looks on the wire, shared by both sides. */

export const TOKEN_KEY = 'millrace-token';
/**
 * Which form of messages the caller speaks; absent means 1. It grows when a callee of the old form would
 * misunderstand the new one; fields that the other side may ignore are added without that.
 */
export const PROTOCOL_KEY = 'millrace-rpc';
export const PROTOCOL_VERSION = 1;

/** Payloads are encoded before gRPC sees them: it moves buffers only. */
export const asIs = (bytes: Buffer): Buffer => bytes;

export function methodPath(name: string, method: string): string {
  return `/millrace.${name}/${method}`;
}

export function tokenMetadata(token: FencingToken): Metadata {
  const metadata = new Metadata({ waitForReady: false });
  metadata.set(TOKEN_KEY, token.toString());
  metadata.set(PROTOCOL_KEY, String(PROTOCOL_VERSION));
  return metadata;
}

export function readToken(metadata: Metadata): FencingToken {
  const [text] = metadata.get(TOKEN_KEY);
  if (typeof text !== 'string' || !/^[0-9]{1,30}$/.test(text))
    throw new InvalidArgumentError('the call carries no fencing token');
  return asFencingToken(BigInt(text));
}

/** Refuses a caller of a newer form, which this process might misunderstand. */
export function checkProtocol(metadata: Metadata): void {
  const [text = '1'] = metadata.get(PROTOCOL_KEY);
  const version = typeof text === 'string' && /^[1-9][0-9]{0,8}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(version)) throw new InvalidArgumentError('the call carries no readable protocol version');
  if (version > PROTOCOL_VERSION)
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `the caller speaks version ${version} of the control protocol; this process understands up to ${PROTOCOL_VERSION}`,
      { hint: 'The caller runs a newer millrace: upgrade this process too.' },
    );
}
