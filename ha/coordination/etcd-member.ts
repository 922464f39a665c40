import { type ChannelOptions, type Client, connectivityState, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { noop } from 'cockatiel';
import { Etcd3, type IDuplexStream, type IOptions, type Services } from 'etcd3';
import { asError } from '../../src/kernel/errors.ts';
import type { RpcFailure } from './etcd-errors.ts';

export interface EtcdSecurity {
  /** PEM. Needs `https://` endpoints; without `ca` the system's roots are trusted. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer } | undefined;
  readonly auth?: { readonly username: string; readonly password: string } | undefined;
}

export type Reply<T> =
  | { readonly kind: 'answer'; readonly answer: T }
  | { readonly kind: 'failure'; readonly failure: RpcFailure };

export type Service = keyof typeof Services;

/** Said where no call was made at all, in the words by which `verdictOn` knows that. */
const NOT_CONNECTED = 'No connection established';
const UNAVAILABLE = 14;

const CHANNEL: ChannelOptions = {
  // A peer that is gone without a word is noticed in 8.5 s while a call or watch waits for it. Pings that
  // are too many for etcd count against us, and at the third it closes the connection: those less than
  // 5 s apart (so not every 5 s, give or take), and any while no call is under way.
  'grpc.keepalive_time_ms': 7_000,
  'grpc.keepalive_timeout_ms': 1_500,
  'grpc.keepalive_permit_without_calls': 0,
  // A member that comes back is used again soon.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // Listings are bounded by pages, and a refused answer would look like a lost one.
  'grpc.max_receive_message_length': -1,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
};

/**
 * One member of the etcd cluster: etcd3's connection, log-in and wire format, and none of its
 * policies. It never retries, keeps no circuit breaker, and reports failures as gRPC gave them.
 */
export class EtcdMember {
  private rpc: MemberRpc;
  private closed = false;

  constructor(
    readonly endpoint: string,
    private readonly security: EtcdSecurity,
    private readonly loginMs: number,
    private readonly wallMs: () => number,
  ) {
    this.rpc = this.open();
  }

  /** Calls once, when connected. Without a connection within `timeoutMs` nothing is sent. */
  async call<T>(service: Service, method: string, payload: object, timeoutMs: number): Promise<Reply<T>> {
    const deadline = this.wallMs() + timeoutMs;
    return this.withClient(service, deadline, ({ client, metadata }) => {
      const invoke = client[method] as Unary<T>;
      return new Promise<Reply<T>>((resolve) => {
        invoke.call(client, payload, metadata, { deadline }, (error, answer) => {
          resolve(
            error === null ? { kind: 'answer', answer: answer as T } : { kind: 'failure', failure: failureOf(error) },
          );
        });
      });
    });
  }

  /** Opens a stream, when connected within `timeoutMs`; `deadlineMs`, if given, ends the stream itself. */
  async stream<Q, R>(
    service: Service,
    method: string,
    timeoutMs: number,
    deadlineMs?: number,
  ): Promise<Reply<IDuplexStream<Q, R>>> {
    return this.withClient(service, this.wallMs() + timeoutMs, ({ client, metadata }) => {
      const invoke = client[method] as Duplex<Q, R>;
      const options = deadlineMs === undefined ? {} : { deadline: this.wallMs() + deadlineMs };
      const stream = invoke.call(client, metadata, options);
      // A stream without this listener would end the process when it breaks after its user has let go.
      stream.on('error', () => undefined);
      return { kind: 'answer', answer: stream };
    });
  }

  /** Forgets the token: the next call logs in anew. */
  logInAgain(): void {
    if (this.closed) return;
    this.rpc.close();
    this.rpc = this.open();
  }

  close(): void {
    this.closed = true;
    this.rpc.close();
  }

  private open(): MemberRpc {
    const { tls, auth } = this.security;
    return new MemberRpc({
      hosts: [this.endpoint],
      grpcOptions: CHANNEL,
      faultHandling: { host: () => noop, global: noop },
      // Only the log-in is called through etcd3 itself.
      defaultCallOptions: () => ({ deadline: this.wallMs() + this.loginMs }),
      ...(auth === undefined ? {} : { auth }),
      ...(tls === undefined ? {} : { credentials: credentialsOf(tls) }),
    });
  }

  private async withClient<T>(
    service: Service,
    deadline: number,
    use: (at: { client: RawClient; metadata: Metadata }) => Promise<Reply<T>> | Reply<T>,
  ): Promise<Reply<T>> {
    if (this.closed) return notConnected('closed');
    try {
      return await this.rpc.withClient(service, async ({ client, metadata }) => {
        if (!(await connected(client, deadline))) return notConnected(this.endpoint);
        const own = metadata.clone();
        // A member that has lost its leader then says so at once instead of keeping us waiting.
        own.set('hasleader', 'true');
        return use({ client: client as RawClient, metadata: own });
      });
    } catch (error) {
      // Thrown by the log-in, which comes before the call: nothing was sent.
      return { kind: 'failure', failure: loginFailure(asError(error)) };
    }
  }
}

/** etcd3 keeps its connection pool from its users, not from its subclasses. */
class MemberRpc extends Etcd3 {
  withClient<T>(service: Service, use: (at: { client: Client; metadata: Metadata }) => Promise<T>): Promise<T> {
    return this.pool.withConnection(service, use);
  }
}

type RawClient = Client & Record<string, unknown>;
type Unary<T> = (
  this: Client,
  payload: object,
  metadata: Metadata,
  options: { deadline: number },
  done: (error: ServiceError | null, answer?: T) => void,
) => void;
type Duplex<Q, R> = (this: Client, metadata: Metadata, options: { deadline?: number }) => IDuplexStream<Q, R>;

/**
 * Waits for the channel to be ready; false as soon as it fails to connect. A call on a channel that
 * was ready may still fail unsent, but never the other way round: what was not ready sent nothing.
 */
async function connected(client: Client, deadline: number): Promise<boolean> {
  const channel = client.getChannel();
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) return true;
    if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) return false;
    const changed = await new Promise<boolean>((resolve) => {
      channel.watchConnectivityState(state, deadline, (error) => resolve(error === undefined));
    });
    if (!changed) return false;
  }
}

function failureOf(error: ServiceError): RpcFailure {
  return { code: error.code, details: error.details };
}

function notConnected(why: string): { kind: 'failure'; failure: RpcFailure } {
  return { kind: 'failure', failure: { code: UNAVAILABLE, details: `${NOT_CONNECTED} (${why})` } };
}

/** etcd3 turns gRPC's errors into classes of its own without their codes; the words are kept. */
function loginFailure(error: Error): RpcFailure {
  const refused = /authentication|invalid user|permission denied|user name is/i.test(error.message);
  return refused
    ? { code: 16, details: `etcdserver: authentication failed: ${error.message}` }
    : { code: UNAVAILABLE, details: `${NOT_CONNECTED} (log-in: ${error.message})` };
}

function credentialsOf(tls: NonNullable<EtcdSecurity['tls']>): NonNullable<IOptions['credentials']> {
  // etcd3 wants a root certificate; gRPC takes null for the system's roots.
  const rootCertificate = (tls.ca ?? null) as Buffer;
  if (tls.cert === undefined || tls.key === undefined) return { rootCertificate };
  return { rootCertificate, certChain: tls.cert, privateKey: tls.key };
}
