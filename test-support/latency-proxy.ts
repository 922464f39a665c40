import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export interface LatencyProxyOptions {
  readonly targetPort: number;
  /** Default 127.0.0.1. */
  readonly targetHost?: string;
  /** One way; a round trip takes twice as long. Default 0. */
  readonly delayMs?: number;
  /** Default: any free one. */
  readonly port?: number;
  /** Address to listen on. Default 127.0.0.1. */
  readonly host?: string;
  /** Sees what clients send, before it is forwarded; see {@link ProxyTap}. */
  readonly tap?: ProxyTap;
}

/** What becomes of a connection: it goes on; its answers are held back; or it is silent both ways from here on. */
export type TapVerdict = 'pass' | 'hold answers' | 'swallow';

/** Asked for each chunk that a client sends. A connection that was once held or swallowed stays so. */
export type ProxyTap = (bytes: Buffer) => TapVerdict;

/**
 * - `forward`: bytes pass, late by the delay.
 * - `stall`: nothing passes and nobody is told, as when a cable is pulled; bytes wait for better times.
 * - `refuse`: open connections are reset and new ones closed at once, as when a process has died.
 */
export type ProxyMode = 'forward' | 'stall' | 'refuse';

/** More than this on its way in one direction, and the sender is made to wait. */
const IN_FLIGHT_BYTES_MAX = 1 << 20;

/** A TCP proxy on the loopback address that adds latency and faults, where the kernel offers no netem. */
export class LatencyProxy implements AsyncDisposable {
  /** One way, for bytes that arrive from now on. */
  delayMs: number;
  /**
   * What a lost packet costs on TCP: this part of the chunks, and all behind them, are late by a
   * retransmission. 0 to 1.
   */
  lossRate = 0;
  lossDelayMs = 200;
  private current: ProxyMode = 'forward';
  private readonly pipes = new Set<DelayedPipe>();

  private constructor(
    private readonly server: Server,
    private readonly options: LatencyProxyOptions,
  ) {
    this.delayMs = options.delayMs ?? 0;
  }

  static async start(options: LatencyProxyOptions): Promise<LatencyProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    const proxy = new LatencyProxy(server, options);
    server.on('connection', (client) => proxy.accept(client));
    server.listen(options.port ?? 0, options.host ?? '127.0.0.1');
    await once(server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get mode(): ProxyMode {
    return this.current;
  }

  set mode(mode: ProxyMode) {
    this.current = mode;
    if (mode === 'refuse') this.reset();
    if (mode === 'forward') for (const pipe of this.pipes) pipe.flush();
  }

  /** Resets every open connection; new ones may come at once. */
  reset(): void {
    for (const pipe of this.pipes) pipe.reset();
  }

  async close(): Promise<void> {
    if (!this.server.listening) return;
    const closed = once(this.server, 'close');
    this.server.close();
    this.reset();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private accept(client: Socket): void {
    // Reported by the `close` that always follows.
    client.on('error', () => undefined);
    if (this.current === 'refuse') {
      client.resetAndDestroy();
      return;
    }
    const held = { answers: false, all: false };
    const target = connect({
      port: this.options.targetPort,
      host: this.options.targetHost ?? '127.0.0.1',
      allowHalfOpen: true,
      noDelay: true,
    });
    target.on('error', () => undefined);
    for (const [from, to] of [
      [client, target],
      [target, client],
    ] as const) {
      const toServer = from === client;
      const pipe = new DelayedPipe(from, to, this, {
        silent: () => held.all || (held.answers && !toServer),
        seen: (bytes) => {
          if (!toServer || held.all) return;
          const verdict = this.options.tap?.(bytes) ?? 'pass';
          if (verdict === 'hold answers') held.answers = true;
          if (verdict === 'swallow') held.all = true;
        },
      });
      this.pipes.add(pipe);
      from.once('close', () => this.pipes.delete(pipe));
    }
  }
}

/** One direction of one connection: bytes leave in the order they came, each not before its time. */
class DelayedPipe {
  private readonly waiting: { readonly dueMs: number; readonly bytes: Buffer | 'end' }[] = [];
  private waitingBytes = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly from: Socket,
    private readonly to: Socket,
    private readonly proxy: {
      readonly delayMs: number;
      readonly mode: ProxyMode;
      readonly lossRate: number;
      readonly lossDelayMs: number;
    },
    private readonly line: { silent(): boolean; seen(bytes: Buffer): void },
  ) {
    from.on('data', (bytes: Buffer) => this.enqueue(bytes));
    from.on('end', () => this.enqueue('end'));
    to.on('drain', () => this.flush());
    // A reset (or any other sudden end) is passed on at once; an orderly end came as `end` before.
    from.on('close', (hadError) => {
      if (hadError || !from.readableEnded) this.reset();
    });
  }

  /** Sends what is due, and comes back for the rest. */
  flush(): void {
    clearTimeout(this.timer);
    const nowMs = performance.now();
    while (this.proxy.mode !== 'stall' && !this.line.silent() && !this.to.writableNeedDrain) {
      const next = this.waiting[0];
      if (next === undefined) break;
      if (next.dueMs > nowMs) {
        this.timer = setTimeout(() => this.flush(), next.dueMs - nowMs);
        break;
      }
      this.waiting.shift();
      if (next.bytes === 'end') this.to.end();
      else {
        this.waitingBytes -= next.bytes.length;
        this.to.write(next.bytes);
      }
    }
    if (this.waitingBytes < IN_FLIGHT_BYTES_MAX && this.from.isPaused()) this.from.resume();
  }

  reset(): void {
    clearTimeout(this.timer);
    this.waiting.length = 0;
    this.waitingBytes = 0;
    for (const socket of [this.from, this.to]) if (!socket.destroyed) socket.resetAndDestroy();
  }

  private enqueue(bytes: Buffer | 'end'): void {
    if (bytes !== 'end') this.line.seen(bytes);
    const { delayMs, lossRate, lossDelayMs } = this.proxy;
    const late = lossRate > 0 && Math.random() < lossRate ? lossDelayMs : 0;
    this.waiting.push({ dueMs: performance.now() + delayMs + late, bytes });
    if (bytes !== 'end') this.waitingBytes += bytes.length;
    if (this.waitingBytes >= IN_FLIGHT_BYTES_MAX) this.from.pause();
    this.flush();
  }
}
