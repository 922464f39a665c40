import { connect, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import type { DataAddress } from '../contracts/task.ts';
import type { Clock } from '../kernel/clock.ts';
import { asError, CorruptError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import type { Logger } from '../kernel/log.ts';
import type { ExchangeOptions } from './exchange-options.ts';
import { encodeFrameHeader, type Frame } from './frame.ts';
import { FrameReader } from './frame-reader.ts';
import type { Transport, TransportServer, Wire, WireHandlers } from './wire.ts';

/** Both sides begin with these eight bytes: magic, version, zero. */
const MAGIC = 0x4d524458; // 'MRDX'
const VERSION = 2;
const PREAMBLE_BYTES = 8;
/** A consumer sends only handshakes, credits and errors, so a server never takes memory for more. */
const CONTROL_FRAME_BYTES_MAX = 64 * 1024;
/** The operating system's probe for peers that vanished; the masters' heartbeats are quicker. */
const KEEP_ALIVE_MS = 5_000;

/** Mutual TLS: both ends show a certificate of the cluster's own CA. PEM. */
export interface TransportTls {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface TcpDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly tls?: TransportTls | undefined;
}

/** Frames over TCP, with TLS or without. */
export class TcpTransport implements Transport {
  constructor(
    private readonly deps: TcpDeps,
    private readonly options: ExchangeOptions,
  ) {}

  connect(address: DataAddress, attach: (wire: Wire) => WireHandlers, signal: AbortSignal): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const peer = describe(address);
      const socket = this.open(address);
      const wire = new TcpWire(socket, peer, this.options.frameBytesMax);
      const fail = (reason: Error) => wire.destroy(reason);
      const timer = this.deps.clock.schedule(this.options.connectTimeoutMs, () =>
        fail(new UnavailableError(`no answer from ${peer} within ${this.options.connectTimeoutMs} ms`)),
      );
      const onAbort = () => fail(new MillraceError('CLOSED', `connecting to ${peer} was stopped`));
      const settled = () => {
        timer.cancel();
        signal.removeEventListener('abort', onAbort);
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
      wire.begin({
        onAgreed: () => {
          settled();
          const handlers = attach(wire);
          resolve(wire);
          return handlers;
        },
        onNeverAgreed: (error) => {
          settled();
          reject(
            error instanceof MillraceError
              ? error
              : new UnavailableError(`cannot connect to ${peer}: ${error?.message ?? 'it closed the connection'}`, {
                  cause: error,
                }),
          );
        },
      });
    });
  }

  listen(bind: DataAddress, attach: (wire: Wire) => WireHandlers): Promise<TransportServer> {
    return new Promise((resolve, reject) => {
      const server = this.createServer();
      const accepted = new Set<TcpWire>();
      server.maxConnections = this.options.connectionsMax;
      // Over TLS only once the client has shown its certificate.
      const event = this.deps.tls === undefined ? 'connection' : 'secureConnection';
      server.on(event, (socket: Socket) => this.accept(socket, accepted, attach));
      server.on('tlsClientError', (err: Error, socket: Socket) => {
        const peer = `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`;
        this.deps.log.warn({ peer, err }, 'data connection without a valid certificate refused');
      });
      const onStartError = (error: Error) =>
        reject(new UnavailableError(`cannot listen on ${describe(bind)}: ${error.message}`, { cause: error }));
      server.once('error', onStartError);
      server.listen(bind.port, bind.host, () => {
        server.off('error', onStartError);
        // Failing to accept one connection (out of descriptors) is no reason to stop serving the others.
        server.on('error', (err) => this.deps.log.warn({ err }, 'data server error'));
        resolve(new TcpServer(server, accepted, { host: bind.host, port: portOf(server) }));
      });
    });
  }

  private open(address: DataAddress): Socket {
    const { host, port } = address;
    const { tls } = this.deps;
    if (tls === undefined) return connect({ host, port, noDelay: true });
    // Membership is what counts, not the name: the CA signs for this cluster only, and workers move between hosts.
    const socket = connectTls({ host, port, ...tls, minVersion: 'TLSv1.2', checkServerIdentity: () => undefined });
    return socket.setNoDelay(true);
  }

  private createServer(): Server {
    const { tls } = this.deps;
    if (tls === undefined) return createServer({ noDelay: true });
    return createTlsServer({
      ...tls,
      noDelay: true,
      minVersion: 'TLSv1.2',
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: this.options.handshakeTimeoutMs,
    });
  }

  private accept(socket: Socket, accepted: Set<TcpWire>, attach: (wire: Wire) => WireHandlers): void {
    const peer = `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`;
    const wire = new TcpWire(socket, peer, CONTROL_FRAME_BYTES_MAX);
    accepted.add(wire);
    socket.once('close', () => accepted.delete(wire));
    const timer = this.deps.clock.schedule(this.options.handshakeTimeoutMs, () =>
      wire.destroy(new MillraceError('TIMEOUT', `${peer} connected and said nothing`)),
    );
    wire.begin({
      onAgreed: () => {
        timer.cancel();
        return attach(wire);
      },
      onNeverAgreed: (err) => {
        timer.cancel();
        // Port scanners and health checks do this; one line at debug is enough.
        this.deps.log.debug({ peer, err }, 'data connection refused');
      },
    });
  }
}

class TcpServer implements TransportServer {
  private closing: Promise<void> | undefined;

  constructor(
    private readonly server: Server,
    private readonly accepted: ReadonlySet<TcpWire>,
    readonly address: DataAddress,
  ) {}

  close(): Promise<void> {
    this.closing ??= new Promise((resolve) => {
      this.server.close(() => resolve());
      for (const wire of this.accepted) wire.destroy(new MillraceError('CLOSED', 'the data server is closing'));
    });
    return this.closing;
  }
}

interface Beginning {
  /** The peer speaks this protocol: from here on its frames go to the returned handlers. */
  readonly onAgreed: () => WireHandlers;
  readonly onNeverAgreed: (error: Error | undefined) => void;
}

class TcpWire implements Wire {
  private handlers: WireHandlers | undefined;
  private hello: Buffer = Buffer.alloc(0);
  private readonly reader: FrameReader;
  private failure: Error | undefined;

  constructor(
    private readonly socket: Socket,
    readonly peer: string,
    payloadBytesMax: number,
  ) {
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.reader = new FrameReader(payloadBytesMax, (frame) => {
      // Frames that were cut before a handler closed the wire are nobody's any more.
      if (!socket.destroyed) this.handlers?.onFrame(frame);
    });
  }

  begin(beginning: Beginning): void {
    const { socket } = this;
    socket.write(preamble());
    socket.on('data', (chunk) => {
      try {
        this.receive(chunk, beginning);
      } catch (error) {
        this.destroy(asError(error));
      }
    });
    socket.on('drain', () => this.handlers?.onDrain());
    socket.on('error', (error) => {
      this.failure ??= error;
    });
    socket.on('close', () => {
      if (this.failure === undefined && this.reader.midFrame) {
        this.failure = new CorruptError('the connection ended in the middle of a frame');
      }
      if (this.handlers === undefined) beginning.onNeverAgreed(this.failure);
      else this.handlers.onClosed(this.failure);
    });
  }

  send(frame: Frame): boolean {
    const { socket } = this;
    if (socket.destroyed) return false;
    const header = encodeFrameHeader(frame);
    if (frame.payload.length === 0) return socket.write(header);
    socket.cork();
    socket.write(header);
    const keepGoing = socket.write(frame.payload);
    socket.uncork();
    return keepGoing;
  }

  destroy(reason: Error): void {
    if (this.socket.destroyed) return;
    this.failure ??= reason;
    this.socket.destroy();
  }

  private receive(chunk: Buffer, beginning: Beginning): void {
    if (this.handlers !== undefined) {
      this.reader.push(chunk);
      return;
    }
    this.hello = this.hello.length === 0 ? chunk : Buffer.concat([this.hello, chunk]);
    // Garbage is recognised by its first bytes, not only once there are eight of them.
    checkPreamble(this.hello, this.peer);
    if (this.hello.length < PREAMBLE_BYTES) return;
    const rest = this.hello.subarray(PREAMBLE_BYTES);
    this.hello = Buffer.alloc(0);
    this.handlers = beginning.onAgreed();
    if (rest.length > 0) this.reader.push(rest);
  }
}

function preamble(): Buffer {
  const bytes = Buffer.alloc(PREAMBLE_BYTES);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt16BE(VERSION, 4);
  return bytes;
}

function checkPreamble(received: Buffer, peer: string): void {
  const expected = preamble();
  const magicBytes = Math.min(4, received.length);
  if (!received.subarray(0, magicBytes).equals(expected.subarray(0, magicBytes))) {
    throw new CorruptError(`${peer} does not speak the data protocol`);
  }
  if (received.length >= PREAMBLE_BYTES && received.readUInt16BE(4) !== VERSION) {
    throw new MillraceError(
      'UNSUPPORTED_VERSION',
      `${peer} speaks version ${received.readUInt16BE(4)} of the data protocol, this process version ${VERSION}`,
      { hint: 'Run the same release on all taskmanagers.' },
    );
  }
}

function portOf(server: Server): number {
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : 0;
}

function describe(address: DataAddress): string {
  return `${address.host}:${address.port}`;
}
