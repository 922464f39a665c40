import type { GatewayConnection, GatewayHandler, GatewaySpec } from '../../src/contracts/gateway.ts';
import { MillraceError } from '../../src/kernel/errors.ts';
import type { FencingToken } from '../../src/kernel/ids.ts';
import type { Random } from '../../src/kernel/random.ts';
import { type CallDescription, outcomeOf } from '../../src/rpc/call-outcome.ts';
import { publicErrorInfo, rebuildError } from '../../src/rpc/envelope.ts';
import { validateRequest, validateResponse } from '../../src/rpc/validate.ts';
import type { SimProcess } from './sim-process.ts';
import type { Trace } from './trace.ts';
import type { VirtualTime } from './virtual-time.ts';

/** A connection over which nothing gets through for so long is given up by both sides. */
const BREAKS_AFTER_MS = 3_000;

/** What one datagram meets on its way. `lost`: it never arrives. */
export interface MessageFate {
  readonly latencyMs: number;
  readonly lost: boolean;
  /** It arrives a second time, so much later. */
  readonly againMs: number | undefined;
}

export interface NetworkNoise {
  readonly latencyMs: number;
  readonly spikeChance: number;
  readonly spikeMs: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
}

export const CALM: NetworkNoise = { latencyMs: 1, spikeChance: 0, spikeMs: 0, lossChance: 0, duplicateChance: 0 };

type AnyHandler = Readonly<Record<string, (request: unknown, token: FencingToken) => Promise<unknown>>>;

interface Endpoint {
  readonly process: SimProcess;
  readonly gateways: Map<string, AnyHandler>;
}

export interface CallInfo {
  readonly from: SimProcess;
  readonly to: string;
  readonly gateway: string;
  readonly method: string;
  readonly request: unknown;
  readonly token: FencingToken;
}

/**
 * Hosts, what is cut between them, and gateways over it with the outcomes of the real ones: an unanswered
 * call that may have acted is `UNKNOWN_OUTCOME`, a refused connection carries `ECONNREFUSED`.
 */
export class SimNetwork {
  noise: NetworkNoise = CALM;
  /** Schemas are checked and messages copied, as over a wire; slower. */
  strict = false;
  /** Told of each call as it leaves its caller; a crash of the caller in it means that it never left. */
  onCall: (call: CallInfo) => void = () => {};
  private readonly cuts = new Map<string, number>();
  private readonly lostHosts = new Set<string>();
  private readonly endpoints = new Map<string, Endpoint>();
  private readonly cutListeners = new Set<() => void>();

  constructor(
    readonly time: VirtualTime,
    private readonly random: Random,
    private readonly trace: Trace,
  ) {}

  listen(address: string, process: SimProcess, gateway: string, handler: object): void {
    const present = this.endpoints.get(address);
    const endpoint = present?.process === process ? present : { process, gateways: new Map<string, AnyHandler>() };
    endpoint.gateways.set(gateway, handler as AnyHandler);
    this.endpoints.set(address, endpoint);
  }

  /** Messages from `from` to `to` do not arrive any more. Cuts nest. */
  cut(from: string, to: string): void {
    const key = `${from}>${to}`;
    this.cuts.set(key, (this.cuts.get(key) ?? 0) + 1);
    for (const listener of [...this.cutListeners]) listener();
  }

  mend(from: string, to: string): void {
    const key = `${from}>${to}`;
    const left = (this.cuts.get(key) ?? 0) - 1;
    if (left > 0) this.cuts.set(key, left);
    else this.cuts.delete(key);
    for (const listener of [...this.cutListeners]) listener();
  }

  mendAll(): void {
    this.cuts.clear();
    this.lostHosts.clear();
    for (const listener of [...this.cutListeners]) listener();
  }

  /** The machine is off: nothing is refused, nothing answers. */
  loseHost(host: string): void {
    this.lostHosts.add(host);
  }

  hostIsBack(host: string): void {
    this.lostHosts.delete(host);
  }

  isCut(from: string, to: string): boolean {
    return from !== to && (this.cuts.has(`${from}>${to}`) || this.lostHosts.has(from) || this.lostHosts.has(to));
  }

  onCutChanged(listener: () => void): () => void {
    this.cutListeners.add(listener);
    return () => this.cutListeners.delete(listener);
  }

  latencyMs(from: string, to: string): number {
    const { latencyMs, spikeChance, spikeMs } = this.noise;
    if (from === to) return 0.05 + 0.1 * this.random.next();
    const base = latencyMs * (0.4 + 1.2 * this.random.next());
    return this.random.next() < spikeChance ? base + spikeMs * this.random.next() : base;
  }

  connect<S extends GatewaySpec>(
    spec: S,
    gateway: string,
    from: SimProcess,
    address: string,
    token: FencingToken,
  ): GatewayConnection<S> {
    return new SimConnection(this, this.trace, spec, gateway, from, address, token).face<S>();
  }

  fate(from: string, to: string): MessageFate {
    const latencyMs = this.latencyMs(from, to);
    const { lossChance, duplicateChance } = this.noise;
    const lost = this.isCut(from, to) || (lossChance > 0 && this.random.next() < lossChance);
    const again = duplicateChance > 0 && this.random.next() < duplicateChance;
    return { latencyMs, lost, againMs: again ? 50 * this.random.next() ** 2 * 20 : undefined };
  }

  /**
   * One message over a connection, as TCP carries it: what meets a cut waits for its end, and what is lost
   * comes late, or the connection breaks, before or after it arrived.
   */
  transmit(from: SimProcess, toHost: string, arrive: () => void, broken: (details: string) => void): void {
    const { time, random } = this;
    const fate = this.fate(from.host, toHost);
    if (this.isCut(from.host, toHost)) {
      this.hold(from, toHost, arrive, broken);
      return;
    }
    if (fate.againMs !== undefined) time.after(fate.latencyMs + fate.againMs, arrive);
    if (!fate.lost) {
      time.after(fate.latencyMs, arrive);
      return;
    }
    const coin = random.next();
    if (coin < 0.5) time.after(200 + 800 * random.next(), arrive);
    else {
      if (coin < 0.75) time.after(fate.latencyMs, arrive);
      time.after(3 * fate.latencyMs, () => broken('the connection was dropped'));
    }
  }

  private hold(from: SimProcess, toHost: string, arrive: () => void, broken: (details: string) => void): void {
    const { time } = this;
    const stop = this.onCutChanged(() => {
      if (this.isCut(from.host, toHost)) return;
      stop();
      timer.cancel();
      if (!from.dead) time.after(this.latencyMs(from.host, toHost), arrive);
    });
    const timer = time.after(BREAKS_AFTER_MS, () => {
      stop();
      broken('the connection was dropped');
    });
  }

  endpoint(address: string): Endpoint | undefined {
    return this.endpoints.get(address);
  }

  static hostOf(address: string): string {
    return address.slice(0, address.indexOf(':'));
  }
}

/** What became of the first copy of a call. */
type Arrival = 'taken' | 'refused';

interface Reply {
  /** The connection is gone, and with it the answer. */
  broke(details: string): void;
  answered(end: (resolve: (value: unknown) => void, reject: (error: unknown) => void) => void): void;
}

/** One caller's connection. */
class SimConnection {
  private closed = false;
  private everConnected = false;
  private readonly pending = new Set<(error: Error) => void>();
  private readonly lostListeners = new Set<(reason: string) => void>();
  private watching: SimProcess | undefined;
  private readonly toHost: string;

  constructor(
    private readonly network: SimNetwork,
    private readonly trace: Trace,
    private readonly spec: GatewaySpec,
    private readonly gateway: string,
    private readonly from: SimProcess,
    private readonly address: string,
    private readonly token: FencingToken,
  ) {
    this.toHost = SimNetwork.hostOf(address);
  }

  face<S extends GatewaySpec>(): GatewayConnection<S> {
    const methods = Object.fromEntries(
      Object.keys(this.spec).map((method) => [method, (request: unknown) => this.call(method, request)]),
    );
    return {
      ...methods,
      close: async () => {
        this.closed = true;
        for (const reject of [...this.pending]) reject(this.closedError());
      },
      onConnectionLost: (listener: (reason: string) => void) => {
        this.lostListeners.add(listener);
        return () => this.lostListeners.delete(listener);
      },
    } as unknown as GatewayConnection<S>;
  }

  private call(method: string, request: unknown): Promise<unknown> {
    const { from, network, address, token, gateway } = this;
    const { deadlineMs, readOnly = false, request: schema } = this.spec[method] as GatewaySpec[string];
    const qualified = `${gateway}.${method}`;
    if (this.closed) return Promise.reject(this.closedError());
    const description: CallDescription = { method: qualified, address, readOnly };
    let sent = request;
    if (network.strict) {
      try {
        sent = structuredClone(validateRequest(schema, request, qualified));
      } catch (error) {
        return Promise.reject(error);
      }
    }
    network.onCall({ from, to: address, gateway, method, request, token });
    return from.outside((resolve, reject) => {
      let settled = false;
      const settle = (end: () => void) => {
        if (settled) return;
        settled = true;
        deadline.cancel();
        this.pending.delete(abandon);
        end();
      };
      const abandon = (error: Error) => settle(() => reject(error));
      this.pending.add(abandon);
      const deadline = from.clock.schedule(deadlineMs, () =>
        abandon(outcomeOf({ kind: 'deadline', deadlineMs, everConnected: this.everConnected }, description)),
      );
      const broke = (details: string) =>
        from.enter(() => {
          const known = this.everConnected ? details : `No connection established: ${details}`;
          abandon(outcomeOf({ kind: 'grpc', error: { code: 14, details: known } }, description));
        });
      const answered: Reply['answered'] = (end) => settle(() => end(resolve, reject));
      const peer = this.watching;
      let arrived: Arrival | undefined;
      const arrive = () => {
        // Without a connection nothing was sent: no other copy of it is on its way.
        if (arrived !== 'refused') arrived = this.deliver(method, sent, { peer, before: arrived }, { broke, answered });
      };
      network.transmit(from, this.toHost, arrive, broke);
    });
  }

  private deliver(
    method: string,
    request: unknown,
    { peer, before }: { readonly peer: SimProcess | undefined; readonly before: Arrival | undefined },
    reply: Reply,
  ): Arrival {
    const { network, address, from, token, gateway } = this;
    const endpoint = network.endpoint(address);
    /** Word of the other side's system, which a machine that is off, or cut off, does not give. */
    const told = (details: string) =>
      network.time.after(network.latencyMs(this.toHost, from.host), () => {
        if (!network.isCut(this.toHost, from.host)) reply.broke(details);
      });
    if (endpoint === undefined || endpoint.process.dead) {
      // A copy that has arrived before needed a connection.
      told(
        before === undefined
          ? `No connection established: connect ECONNREFUSED ${address}`
          : 'the connection was reset',
      );
      return before ?? 'refused';
    }
    const { process } = endpoint;
    // A new process knows nothing of the connections of the one before.
    if (peer !== undefined && peer !== process) {
      told('the connection was reset');
      return before ?? 'taken';
    }
    this.everConnected = true;
    this.watch(process);
    const handler = endpoint.gateways.get(gateway)?.[method];
    const back = (end: Parameters<Reply['answered']>[0]) =>
      network.transmit(process, from.host, () => from.enter(() => reply.answered(end)), reply.broke);
    if (handler === undefined) {
      const error = outcomeOf({ kind: 'grpc', error: { code: 12, details: '' } }, { method, address, readOnly: false });
      back((_, reject) => reject(error));
      return 'taken';
    }
    const stop = process.onDeath(() => told('the connection was dropped'));
    process.enter(() => {
      this.trace.event(process.name, `${gateway}.${method}`, String(token), () => `from ${from.name}`);
      const answered: Reply['answered'] = (end) => {
        stop();
        if (!process.dead) back(end);
      };
      handlerCall(handler, endpoint.gateways.get(gateway), request, token).then(
        (response) => {
          const checked = network.strict ? this.checkedResponse(method, response) : response;
          answered((resolve) => resolve(checked));
        },
        (error: unknown) => {
          const rebuilt = rebuildError(publicErrorInfo(error));
          answered((_, reject) => reject(rebuilt));
        },
      );
    });
    return 'taken';
  }

  private checkedResponse(method: string, response: unknown): unknown {
    const { response: schema } = this.spec[method] as GatewaySpec[string];
    return structuredClone(validateResponse(schema, response, `${this.gateway}.${method}`));
  }

  /** A process that dies resets its connections; a machine that is off says nothing. */
  private watch(process: SimProcess): void {
    if (this.watching === process) return;
    this.watching = process;
    process.onDeath(() => {
      this.watching = undefined;
      this.network.time.after(this.network.latencyMs(this.toHost, this.from.host), () => {
        if (this.closed || this.network.isCut(this.toHost, this.from.host)) return;
        this.from.enter(() => {
          if (!this.closed) for (const listener of [...this.lostListeners]) listener('connection reset');
        });
      });
    });
  }

  private closedError(): MillraceError {
    return new MillraceError('CLOSED', `${this.gateway} at ${this.address}: the connection was closed by its owner`);
  }
}

/** What a handler throws at once arrives as what it rejects with. */
async function handlerCall(
  handler: AnyHandler[string],
  owner: AnyHandler | undefined,
  request: unknown,
  token: FencingToken,
): Promise<unknown> {
  return await handler.call(owner, request, token);
}

export type { GatewayHandler };
