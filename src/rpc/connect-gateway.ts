import type { GatewayConnection, GatewaySpec, MethodSpec } from '../contracts/gateway.ts';
import type { Clock } from '../kernel/clock.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import { parseAddress } from './address.ts';
import { outcomeOf } from './call-outcome.ts';
import { decodeAnswer, rebuildError } from './envelope.ts';
import { GrpcChannel } from './grpc-channel.ts';
import { Listeners } from './listeners.ts';
import { assertPayloadSize, DEFAULT_PAYLOAD_BYTES_MAX, encodePayload } from './payload-codec.ts';
import type { RpcTls } from './tls.ts';
import { validateRequest, validateResponse } from './validate.ts';
import { methodPath, tokenMetadata } from './wire.ts';

export interface ConnectOptions {
  /** Travels with every call of this gateway. */
  readonly token: FencingToken;
  readonly clock: Clock;
  readonly log: Logger;
  readonly tls?: RpcTls;
  /** Default 64 MiB. */
  readonly payloadBytesMax?: number;
}

/**
 * The caller's end of a gateway. Nothing is connected before the first call; a lost connection is
 * re-established by the next one. Throws `INVALID_ARGUMENT` for an address that is none.
 *
 * Calls reject with what the handler threw, or: `INVALID_ARGUMENT` (request does not fit the schema),
 * `TOO_LARGE`, `UNAVAILABLE` (nothing happened), `UNKNOWN_OUTCOME`, `TIMEOUT`, `CLOSED`; see `outcomeOf`.
 */
export function connectGateway<S extends GatewaySpec>(
  spec: S,
  name: string,
  address: string,
  options: ConnectOptions,
): GatewayConnection<S> {
  const lost = new Listeners<string>(options.log);
  const payloadBytesMax = options.payloadBytesMax ?? DEFAULT_PAYLOAD_BYTES_MAX;
  const channel = new GrpcChannel({
    address: parseAddress(address),
    payloadBytesMax,
    tls: options.tls,
    clock: options.clock,
    onConnectionLost: (reason) => {
      options.log.info({ address, reason }, 'rpc connection lost');
      lost.emit(reason);
    },
  });

  // biome-ignore lint/suspicious/noExplicitAny: a specification holds methods of unrelated types
  const caller = (method: string, methodSpec: MethodSpec<any, any>) => {
    const qualified = `${name}.${method}`;
    const path = methodPath(name, method);
    return async (request: unknown): Promise<unknown> => {
      const bytes = encodePayload(validateRequest(methodSpec.request, request, qualified), `request of ${qualified}`);
      assertPayloadSize(bytes.length, payloadBytesMax, `request of ${qualified}`);
      const { deadlineMs, readOnly = false } = methodSpec;
      const result = await channel.call(path, bytes, tokenMetadata(options.token), deadlineMs);
      const call = { method: qualified, address, readOnly };
      switch (result.kind) {
        case 'answered':
          return unwrap(result.bytes, methodSpec, qualified);
        case 'failed':
          throw outcomeOf({ kind: 'grpc', error: result.error }, call);
        case 'deadline':
          throw outcomeOf({ kind: 'deadline', deadlineMs, everConnected: result.everConnected }, call);
        case 'closed':
          throw new MillraceError('CLOSED', `${qualified} at ${address}: the connection was closed by its owner`);
      }
    };
  };

  const methods = Object.entries(spec).map(([method, methodSpec]) => [method, caller(method, methodSpec)] as const);
  return {
    ...Object.fromEntries(methods),
    async close() {
      channel.close();
    },
    onConnectionLost: (listener: (reason: string) => void) => lost.subscribe(listener),
  } as GatewayConnection<S>;
}

// biome-ignore lint/suspicious/noExplicitAny: a specification holds methods of unrelated types
function unwrap(bytes: Buffer, spec: MethodSpec<any, any>, method: string): unknown {
  const answer = decodeAnswer(bytes, `response of ${method}`);
  if ('error' in answer) throw rebuildError(answer.error);
  return validateResponse(spec.response, answer.value, method);
}
