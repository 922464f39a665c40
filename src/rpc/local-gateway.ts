import type { GatewayConnection, GatewayHandler, GatewaySpec } from '../contracts/gateway.ts';
import { MillraceError } from '../kernel/errors.ts';
import type { Clock } from '../kernel/clock.ts';
import type { FencingToken } from '../kernel/ids.ts';
import { outcomeOf } from './call-outcome.ts';
import { publicErrorInfo, rebuildError } from './envelope.ts';
import { validateRequest, validateResponse } from './validate.ts';

export interface LocalGatewayOptions {
  readonly token: FencingToken;
  /** With a clock the deadlines of the specification are kept; without, calls wait as long as the handler does. */
  readonly clock?: Clock;
  /** Check both schemas, as over the network. Default true. */
  readonly validate?: boolean;
  /** For messages. Default `local`. */
  readonly name?: string;
}

/**
 * A gateway to a handler of the same process, for the mini cluster and the simulator. It behaves as the
 * one over the network: the handler runs in a later turn, sees copies, and its errors arrive rebuilt.
 */
export function localGateway<S extends GatewaySpec>(
  spec: S,
  handler: GatewayHandler<S>,
  options: LocalGatewayOptions,
): GatewayConnection<S> {
  const { token, clock, validate = true, name = 'local' } = options;
  let closed = false;

  const caller = (method: string) => async (request: unknown) => {
    const { request: requestSchema, response: responseSchema, deadlineMs, readOnly = false } = specOf(spec, method);
    const qualified = `${name}.${method}`;
    const closedError = () => new MillraceError('CLOSED', `${qualified}: the connection was closed by its owner`);
    if (closed) throw closedError();
    const sent = structuredClone(validate ? validateRequest(requestSchema, request, qualified) : request);
    const work = Promise.resolve()
      .then(() => handler[method as keyof S](sent as never, token))
      .then(
        (response) => structuredClone(validate ? validateResponse(responseSchema, response, qualified) : response),
        (error: unknown) => {
          throw rebuildError(publicErrorInfo(error));
        },
      );
    const response =
      clock === undefined ? await work : await beforeDeadline(work, clock, deadlineMs, qualified, readOnly);
    if (closed) throw closedError();
    return response;
  };

  return {
    ...Object.fromEntries(Object.keys(spec).map((method) => [method, caller(method)])),
    async close() {
      closed = true;
    },
    // A handler of this process cannot be disconnected from it.
    onConnectionLost: () => () => {},
  } as unknown as GatewayConnection<S>;
}

function specOf<S extends GatewaySpec>(spec: S, method: string): S[keyof S] {
  return spec[method as keyof S] as S[keyof S];
}

function beforeDeadline<T>(
  work: Promise<T>,
  clock: Clock,
  deadlineMs: number,
  method: string,
  readOnly: boolean,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.schedule(deadlineMs, () => {
      const call = { method, address: 'this process', readOnly };
      reject(outcomeOf({ kind: 'deadline', deadlineMs, everConnected: true }, call));
    });
    work.finally(() => timer.cancel()).then(resolve, reject);
  });
}
