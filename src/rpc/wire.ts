import { Metadata } from '@grpc/grpc-js';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { asFencingToken, type FencingToken } from '../kernel/ids.ts';

/** How a call looks on the wire, shared by both sides. */

const TOKEN_KEY = 'millrace-token';

/** Payloads are encoded before gRPC sees them: it moves buffers only. */
export const asIs = (bytes: Buffer): Buffer => bytes;

export function methodPath(name: string, method: string): string {
  return `/millrace.${name}/${method}`;
}

export function tokenMetadata(token: FencingToken): Metadata {
  const metadata = new Metadata({ waitForReady: false });
  metadata.set(TOKEN_KEY, token.toString());
  return metadata;
}

export function readToken(metadata: Metadata): FencingToken {
  const [text] = metadata.get(TOKEN_KEY);
  if (typeof text !== 'string' || !/^[0-9]{1,30}$/.test(text))
    throw new InvalidArgumentError('the call carries no fencing token');
  return asFencingToken(BigInt(text));
}
