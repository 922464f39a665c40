import { logVerbosity, Server, type ServerUnaryCall, type sendUnaryData, setLogVerbosity } from '@grpc/grpc-js';
import type { GatewayHandler, GatewaySpec, MethodSpec } from '../contracts/gateway.ts';
import { InvariantError } from '../kernel/assert.ts';
import { asError, InvalidArgumentError, isMillraceError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import type { FencingToken } from '../kernel/ids.ts';
import type { Closeable } from '../kernel/lifecycle.ts';
import type { Logger } from '../kernel/log.ts';
import { SystemRandom } from '../kernel/random.ts';
import { formatAddress } from './address.ts';
import { controlPorts } from './control-ports.ts';
import { encodeError, encodeValue, publicErrorInfo } from './envelope.ts';
import { assertPayloadSize, decodePayload, DEFAULT_PAYLOAD_BYTES_MAX } from './payload-codec.ts';
import { serverCredentials, type RpcTls } from './tls.ts';
import { validateRequest, validateResponse } from './validate.ts';
import { asIs, checkProtocol, methodPath, readToken } from './wire.ts';

export interface RpcServerOptions {
  /** Interface to bind. */
  readonly host: string;
  /** 0 takes a free one of {@link CONTROL_PORTS}. */
  readonly port: number;
  readonly log: Logger;
  readonly limits?: {
    /** Largest request and response. Default 64 MiB. */
    readonly payloadBytesMax?: number;
    /** Calls in progress; more are answered `UNAVAILABLE`. Default 4096. */
    readonly callsMax?: number;
    /** How long `close` waits for calls in progress before it cuts them. Default 1 s. */
    readonly drainMs?: number;
  };
  readonly tls?: RpcTls;
}

type AnyMethod = (request: unknown, token: FencingToken) => Promise<unknown>;
type Call = ServerUnaryCall<Buffer, Buffer>;
type Reply = sendUnaryData<Buffer>;

/** The callee's end of all gateways of one process, on one port. */
export class RpcServer implements Closeable {
  private readonly handlers = new Map<string, AnyMethod>();
  private readonly registered = new Set<string>();
  private callsInProgress = 0;
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly server: Server,
    private readonly options: RpcServerOptions,
    /** The bound port. */
    readonly port: number,
  ) {}

  /** Resolves once it listens. Rejects with `CONFIGURATION` when it cannot bind. */
  static async start(options: RpcServerOptions): Promise<RpcServer> {
    const payloadBytesMax = options.limits?.payloadBytesMax ?? DEFAULT_PAYLOAD_BYTES_MAX;
    const server = new Server({
      'grpc.max_receive_message_length': payloadBytesMax,
      // Sizes are checked before sending, with a better message.
      'grpc.max_send_message_length': -1,
      'grpc.keepalive_time_ms': 5_000,
      'grpc.keepalive_timeout_ms': 1_500,
      'grpc-node.flow_control_window': 1024 * 1024,
      'grpc.enable_channelz': 0,
    });
    const port = await bind(server, options);
    return new RpcServer(server, options, port);
  }

  /**
   * Offers `handler` under `name`, in place of the one before, if any. The returned function withdraws
   * it (unless it has been replaced since): later calls are answered `UNAVAILABLE`.
   */
  serve<S extends GatewaySpec>(name: string, spec: S, handler: GatewayHandler<S>): () => void {
    const methods = new Map<string, AnyMethod>();
    for (const [methodName, methodSpec] of Object.entries(spec)) {
      const path = methodPath(name, methodName);
      methods.set(path, checked(`${name}.${methodName}`, methodSpec, handler[methodName]?.bind(handler) as AnyMethod));
    }
    for (const [path, method] of methods) {
      this.handlers.set(path, method);
      if (this.registered.has(path)) continue;
      this.registered.add(path);
      this.server.register(
        path,
        (call: Call, reply: Reply) => void this.answer(path, call, reply),
        asIs,
        asIs,
        'unary',
      );
    }
    return () => {
      for (const [path, method] of methods) if (this.handlers.get(path) === method) this.handlers.delete(path);
    };
  }

  /** Refuses new calls, gives those in progress a moment, then cuts them. */
  close(): Promise<void> {
    this.closing ??= this.drainAndStop();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async drainAndStop(): Promise<void> {
    await new Promise<void>((resolve) => {
      const force = setTimeout(() => this.server.forceShutdown(), this.options.limits?.drainMs ?? 1_000);
      this.server.tryShutdown(() => {
        clearTimeout(force);
        resolve();
      });
    });
    this.handlers.clear();
  }

  /** Never rejects: every failure becomes the call's answer. */
  private async answer(path: string, call: Call, reply: Reply): Promise<void> {
    this.callsInProgress++;
    try {
      const bytes = await this.dispatch(path, call);
      reply(null, bytes);
    } catch (error) {
      this.logFailure(path, error);
      reply(null, encodeError(publicErrorInfo(error)));
      // A broken invariant ends the process, but the caller is told first.
      if (error instanceof InvariantError)
        setImmediate(() => {
          throw error;
        });
    } finally {
      this.callsInProgress--;
    }
  }

  private async dispatch(path: string, call: Call): Promise<Buffer> {
    const { payloadBytesMax = DEFAULT_PAYLOAD_BYTES_MAX, callsMax = 4_096 } = this.options.limits ?? {};
    if (this.closing !== undefined) throw new UnavailableError('this process is closing');
    if (this.callsInProgress > callsMax)
      throw new UnavailableError(`${callsMax} calls are in progress`, { hint: 'Retry with back-off.' });
    const handler = this.handlers.get(path);
    if (handler === undefined) throw new UnavailableError(`${path} is not offered here now`);
    checkProtocol(call.metadata);
    const token = readToken(call.metadata);
    const response = await handler(decodePayload(call.request, `request of ${path}`), token);
    const bytes = encodeValue(response, `response of ${path}`);
    assertPayloadSize(bytes.length, payloadBytesMax, `response of ${path}`);
    return bytes;
  }

  private logFailure(path: string, error: unknown): void {
    const expected = isMillraceError(error) && error.code !== 'INTERNAL';
    if (expected) this.options.log.debug({ method: path, code: error.code, reason: error.message }, 'rpc refused');
    else this.options.log.error({ method: path, err: asError(error) }, 'rpc handler failed');
  }
}

async function bind(server: Server, { host, port, tls }: RpcServerOptions): Promise<number> {
  // Of a taken port the library would tell standard error, which is the log's; its answer says the same.
  if (process.env.GRPC_VERBOSITY === undefined) setLogVerbosity(logVerbosity.NONE);
  let failure: Error | undefined;
  for (const one of port === 0 ? controlPorts(new SystemRandom()) : [port]) {
    const target = formatAddress({ host, port: one });
    const outcome = await new Promise<number | Error>((resolve) => {
      server.bindAsync(target, serverCredentials(tls), (error, bound) => resolve(error ?? bound));
    });
    if (typeof outcome === 'number') return outcome;
    failure = new MillraceError('CONFIGURATION', `cannot listen for RPC on ${target}: ${outcome.message}`, {
      hint: 'Is the port taken, or the host not an address of this machine?',
      cause: outcome,
    });
    // A host that is none of this machine's does not become one on another port.
    if (!outcome.message.includes('EADDRINUSE')) break;
  }
  throw failure ?? new Error('no port was tried');
}

// biome-ignore lint/suspicious/noExplicitAny: a specification holds methods of unrelated types
function checked(name: string, spec: MethodSpec<any, any>, call: AnyMethod | undefined): AnyMethod {
  if (call === undefined) throw new InvalidArgumentError(`the handler has no method ${name}`);
  return async (request, token) => {
    const response = await call(validateRequest(spec.request, request, name), token);
    return validateResponse(spec.response, response, name);
  };
}
