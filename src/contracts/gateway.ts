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
): MethodSpec<Req, Res> {
  return { request, response, deadlineMs };
}
