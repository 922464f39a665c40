import type { z } from 'zod';
import type { FencingToken } from '../kernel/ids.ts';

/**
 * A gateway is one role's face to another, described once as data: the RPC room makes the client and
 * the server from it, so that both sides validate the same schemas and keep the same deadlines.
 */
export interface MethodSpec<Req, Res> {
  readonly request: z.ZodType<Req>;
  readonly response: z.ZodType<Res>;
  readonly deadlineMs: number;
  /**
   * True when the call changes nothing: a lost answer is then `TIMEOUT` or `UNAVAILABLE`. For all others
   * it is `UNKNOWN_OUTCOME`, because the callee may have acted.
   */
  readonly readOnly?: boolean;
}

// biome-ignore lint/suspicious/noExplicitAny: a specification holds methods of unrelated types
export type GatewaySpec = Readonly<Record<string, MethodSpec<any, any>>>;

export type RequestOf<M> = M extends MethodSpec<infer Req, unknown> ? Req : never;
export type ResponseOf<M> = M extends MethodSpec<unknown, infer Res> ? Res : never;

/** The caller's side. The token travels with every call; the callee may refuse with `FENCED`. */
export type Gateway<S extends GatewaySpec> = {
  readonly [M in keyof S]: (request: RequestOf<S[M]>) => Promise<ResponseOf<S[M]>>;
};

/** The callee's side. `token` is the caller's leadership (leader to worker) or the one it believes in (worker to leader). */
export type GatewayHandler<S extends GatewaySpec> = {
  readonly [M in keyof S]: (request: RequestOf<S[M]>, token: FencingToken) => Promise<ResponseOf<S[M]>>;
};

export function method<Req, Res>(
  request: z.ZodType<Req>,
  response: z.ZodType<Res>,
  deadlineMs: number,
  options: { readonly readOnly?: boolean } = {},
): MethodSpec<Req, Res> {
  return { request, response, deadlineMs, ...options };
}

/** A gateway with the connection under it, as those hold it who opened it. */
export type GatewayConnection<S extends GatewaySpec> = Gateway<S> & {
  /** Idempotent. Calls in flight and later ones reject with `CLOSED`. */
  close(): Promise<void>;
  /**
   * Called each time an established connection breaks: a hint to look at once whether the peer lives,
   * never a proof that it died. Returns the unsubscriber.
   */
  onConnectionLost(listener: (reason: string) => void): () => void;
};

/**
 * Whether `error` says that the peer's machine answered and nobody listens there: the process is gone
 * (or not there yet). Time-outs and unreachable hosts are no such proof.
 */
export function isConnectionRefused(error: unknown): boolean {
  let current = error;
  // Bounded: a cycle of causes must not hang the caller.
  for (let depth = 0; depth < 8 && current instanceof Error; depth++) {
    if ((current as NodeJS.ErrnoException).code === 'ECONNREFUSED') return true;
    current = current.cause;
  }
  return false;
}
