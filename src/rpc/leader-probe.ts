import {
  type ClientHttp2Session,
  connect as connectHttp2,
  constants,
  type SecureClientSessionOptions,
} from 'node:http2';
import { IDENTITY, identityGatewaySpec } from '../contracts/identity-gateway.ts';
import type { LeaderAddress, LeaderProbe, ProbeAnswer } from '../contracts/leadership.ts';
import type { Clock } from '../kernel/clock.ts';
import { asError } from '../kernel/errors.ts';
import { formatAddress, parseAddress } from './address.ts';
import { decodeAnswer } from './envelope.ts';
import { encodePayload } from './payload-codec.ts';
import type { RpcTls } from './tls.ts';
import { validateResponse } from './validate.ts';
import { methodPath, PROTOCOL_KEY, PROTOCOL_VERSION, TOKEN_KEY } from './wire.ts';

export interface RpcLeaderProbeOptions {
  readonly clock: Clock;
  readonly tls?: RpcTls;
  /** A connect or an answer that takes longer is `unclear` (default 500). */
  readonly deadlineMs?: number;
}

const { HTTP2_HEADER_PATH, HTTP2_HEADER_METHOD, HTTP2_HEADER_STATUS, HTTP2_HEADER_CONTENT_TYPE } = constants;
const WHAT = 'response of identity.identify';
const ANSWER_BYTES_MAX = 16 * 1024;
const UNIMPLEMENTED = '12';

/**
 * Looks at a leader by its control port. A plain HTTP/2 session and not a gRPC channel: a channel connects
 * again by itself, waits before it does, and tells a refusal only in words.
 */
export class RpcLeaderProbe implements LeaderProbe {
  constructor(private readonly options: RpcLeaderProbeOptions) {}

  connect(leader: LeaderAddress, lost: () => void): Promise<ProbeAnswer> {
    return new Promise((resolve) => {
      let session: ClientHttp2Session;
      try {
        session = this.open(leader.rpcAddress);
      } catch (error) {
        resolve({ kind: 'unclear', reason: asError(error).message });
        return;
      }
      let held = false;
      let answered = false;
      const answer = (one: ProbeAnswer) => {
        if (answered) return;
        answered = true;
        timer.cancel();
        held = one.kind === 'same';
        if (!held) session.destroy();
        resolve(one);
      };
      const timer = this.options.clock.schedule(this.options.deadlineMs ?? 500, () =>
        answer({ kind: 'unclear', reason: 'no answer in time' }),
      );
      const close = () => {
        held = false;
        session.destroy();
      };
      session.on('error', (error) => answer(failureOf(error)));
      session.on('close', () => {
        answer({ kind: 'unclear', reason: 'the connection was closed' });
        if (held) {
          held = false;
          lost();
        }
      });
      session.on('goaway', () => session.destroy());
      identify(
        session,
        (one) => {
          if (one.kind !== 'incarnation') answer(one);
          else answer(one.incarnation === leader.incarnation ? { kind: 'same', close } : { kind: 'stranger' });
        },
        () => {
          if (!answered) session.close();
        },
      );
    });
  }

  private open(rpcAddress: string): ClientHttp2Session {
    const { tls } = this.options;
    const authority = formatAddress(parseAddress(rpcAddress));
    if (tls === undefined) return connectHttp2(`http://${authority}`);
    const pem = (bytes: Uint8Array) => Buffer.from(bytes);
    const secure: SecureClientSessionOptions = { ca: pem(tls.ca), cert: pem(tls.cert), key: pem(tls.key) };
    return connectHttp2(`https://${authority}`, secure);
  }
}

type Identified =
  | { readonly kind: 'incarnation'; readonly incarnation: string }
  | Exclude<ProbeAnswer, { kind: 'same' }>;

/** One unary gRPC call by hand: a frame there, a frame back. */
function identify(session: ClientHttp2Session, done: (answer: Identified) => void, closed: () => void): void {
  const stream = session.request({
    [HTTP2_HEADER_METHOD]: 'POST',
    [HTTP2_HEADER_PATH]: methodPath(IDENTITY, 'identify'),
    [HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc',
    te: 'trailers',
    [TOKEN_KEY]: '0',
    [PROTOCOL_KEY]: String(PROTOCOL_VERSION),
  });
  const parts: Buffer[] = [];
  let bytes = 0;
  stream.on('response', (headers) => {
    const type = String(headers[HTTP2_HEADER_CONTENT_TYPE] ?? '');
    // Somebody who speaks HTTP/2 and not gRPC, or gRPC and not this: no process of ours that we have met.
    if (Number(headers[HTTP2_HEADER_STATUS]) !== 200 || !type.startsWith('application/grpc'))
      done({ kind: 'stranger' });
    else if (headers['grpc-status'] === UNIMPLEMENTED) done({ kind: 'stranger' });
  });
  stream.on('trailers', (trailers) => {
    if (trailers['grpc-status'] === UNIMPLEMENTED) done({ kind: 'stranger' });
  });
  stream.on('data', (part: Buffer) => {
    bytes += part.length;
    if (bytes > ANSWER_BYTES_MAX) done({ kind: 'stranger' });
    else parts.push(part);
  });
  // Why a stream broke the session knows better, and says so when it ends.
  stream.on('error', (error) => {
    const verdict = failureOf(error);
    if (verdict.kind === 'stranger') done(verdict);
  });
  stream.on('end', () => {
    if (parts.length > 0) done(incarnationIn(Buffer.concat(parts)));
  });
  stream.on('close', closed);
  stream.end(framed(encodePayload({}, 'request of identity.identify')));
}

function framed(payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

function incarnationIn(body: Buffer): Identified {
  if (body.length < 5 || body.length !== 5 + body.readUInt32BE(1))
    return { kind: 'unclear', reason: 'the answer is cut off' };
  try {
    const answer = decodeAnswer(body.subarray(5), WHAT);
    // Its own word that it cannot say now, e.g. because it is closing.
    if ('error' in answer) return { kind: 'unclear', reason: answer.error.message };
    const { incarnation } = validateResponse(identityGatewaySpec.identify.response, answer.value, WHAT);
    return { kind: 'incarnation', incarnation };
  } catch (error) {
    return { kind: 'unclear', reason: asError(error).message };
  }
}

function failureOf(error: Error): Exclude<ProbeAnswer, { kind: 'same' }> {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (code === 'ECONNREFUSED') return { kind: 'refused' };
  // What came is no HTTP/2, or not the cluster's certificate. (An orderly GOAWAY has another code.)
  if (code === 'ERR_HTTP2_ERROR' || code.startsWith('ERR_SSL') || code.startsWith('ERR_TLS'))
    return { kind: 'stranger' };
  return { kind: 'unclear', reason: error.message };
}
