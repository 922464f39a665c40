import { type ChannelOptions, Client, connectivityState, type Metadata, type ServiceError } from '@grpc/grpc-js';
import type { Clock } from '../kernel/clock.ts';
import { formatAddress, type RpcAddress } from './address.ts';
import { channelCredentials, type RpcTls } from './tls.ts';
import { asIs } from './wire.ts';

export type CallResult =
  | { readonly kind: 'answered'; readonly bytes: Buffer }
  | { readonly kind: 'failed'; readonly error: ServiceError }
  | { readonly kind: 'deadline'; readonly everConnected: boolean }
  | { readonly kind: 'closed' };

export interface GrpcChannelOptions {
  readonly address: RpcAddress;
  readonly payloadBytesMax: number;
  readonly tls: RpcTls | undefined;
  readonly clock: Clock;
  readonly onConnectionLost: (reason: string) => void;
}

/** The dead are told by their refusals, each of a connect of its own (see `HeartbeatMonitor`): that must not take long. */
const RECONNECT_MS = 20;

/**
 * One TCP connection to one peer, opened with the first call.
 *
 * gRPC's defaults suit data centres, not failover: it shares connections between clients, waits up to
 * 20 s to reconnect, retries by itself and obeys proxy variables. All of that is off. Deadlines are kept
 * here, by the monotonic clock; gRPC's follow the wall clock.
 */
export class GrpcChannel {
  private client: Client;
  private closed = false;
  private readonly cancels = new Set<() => void>();

  constructor(private readonly options: GrpcChannelOptions) {
    this.client = this.open();
  }

  call(path: string, request: Buffer, metadata: Metadata, deadlineMs: number): Promise<CallResult> {
    if (this.closed) return Promise.resolve({ kind: 'closed' });
    const { client } = this;
    let everConnected = isReady(client);
    return new Promise((resolve) => {
      const end = (result: CallResult) => {
        timer.cancel();
        this.cancels.delete(cancel);
        resolve(result);
      };
      const cancel = () => {
        end({ kind: 'closed' });
        call.cancel();
      };
      const timer = this.options.clock.schedule(deadlineMs, () => {
        everConnected ||= isReady(client);
        end({ kind: 'deadline', everConnected });
        call.cancel();
        if (!everConnected) this.reopen(client);
      });
      this.cancels.add(cancel);
      const call = client.makeUnaryRequest<Buffer, Buffer>(path, asIs, asIs, request, metadata, (error, bytes) => {
        if (error !== null) end({ kind: 'failed', error });
        else if (bytes !== undefined) end({ kind: 'answered', bytes });
      });
    });
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const cancel of this.cancels) cancel();
    this.client.close();
  }

  /**
   * A connect that hung for a whole deadline (packets dropped, a frozen peer) may go on hanging for
   * minutes in the kernel's own back-off; a fresh connect finds a healed network at once.
   */
  private reopen(stale: Client): void {
    if (this.closed || this.client !== stale) return;
    this.client = this.open();
    stale.close();
  }

  private open(): Client {
    const target = formatAddress(this.options.address);
    const client = new Client(target, channelCredentials(this.options.tls), this.channelOptions());
    this.watch(client, connectivityState.IDLE);
    return client;
  }

  private watch(client: Client, from: connectivityState): void {
    client.getChannel().watchConnectivityState(from, Number.POSITIVE_INFINITY, () => {
      if (this.closed || this.client !== client) return;
      const to = client.getChannel().getConnectivityState(false);
      if (to === connectivityState.SHUTDOWN) return;
      if (from === connectivityState.READY) this.options.onConnectionLost(`connection became ${connectivityState[to]}`);
      this.watch(client, to);
    });
  }

  private channelOptions(): ChannelOptions {
    return {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': RECONNECT_MS,
      'grpc.min_reconnect_backoff_ms': RECONNECT_MS,
      'grpc.max_reconnect_backoff_ms': 200,
      'grpc.keepalive_time_ms': 5_000,
      'grpc.keepalive_timeout_ms': 1_500,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.enable_retries': 0,
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.dns_min_time_between_resolutions_ms': 1_000,
      'grpc.max_receive_message_length': this.options.payloadBytesMax,
      'grpc.max_send_message_length': -1,
      'grpc-node.flow_control_window': 1024 * 1024,
      'grpc.enable_channelz': 0,
      // Nobody looks at the name, but TLS wants one that is no IP address.
      ...(this.options.tls === undefined ? {} : { 'grpc.ssl_target_name_override': 'millrace' }),
    };
  }
}

function isReady(client: Client): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.READY;
}
