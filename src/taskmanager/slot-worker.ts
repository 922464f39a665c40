import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { DataAddress } from '../contracts/task.ts';
import type { Neighbours } from '../exchange/port-transport.ts';
import { assert } from '../kernel/assert.ts';
import { every, SystemClock, type Timer } from '../kernel/clock.ts';
import { fromErrorInfo, toErrorInfo } from '../kernel/errors.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import { guardHeap, outOfMemory } from './heap-guard.ts';
import type { SlotRuntimeFactory } from './inline-slot-host.ts';
import type { FromSlot, SlotThreadData, ToSlot } from './slot-protocol.ts';

/**
 * The inside of a slot's thread. The entry file belongs to `main`, which knows how to make object stores
 * and engines:
 *
 * ```ts
 * await runSlotWorker<SlotData>(async (data, neighbours) => {
 *   const objects = await openObjectStore(data.storageDir);
 *   return (options, events) => SlotRuntime.start({ ..., neighbours, events }, options);
 * });
 * ```
 *
 * `prepare` runs when the thread is made, which is usually long before a job needs it: whatever is slow
 * belongs there. Its failure, or that of user code outside of a task, ends the thread.
 */
export async function runSlotWorker<D>(
  prepare: (data: D, neighbours: Neighbours) => Promise<SlotRuntimeFactory>,
): Promise<void> {
  assert(!isMainThread && parentPort !== null, 'runSlotWorker must run in a worker thread');
  const { data, reportIntervalMs, heapBytes } = workerData as SlotThreadData;
  const port = parentPort;
  const neighbours = new ThreadsOfProcess(port);
  const start = await prepare(data as D, neighbours);
  const thread = new SlotThreadInside(port, start, neighbours, reportIntervalMs);
  port.on('message', (message: ToSlot) => thread.receive(message));
  guardHeap(heapBytes, () => thread.send({ kind: 'crashed', error: toErrorInfo(outOfMemory(heapBytes)) }));
  thread.send({ kind: 'loaded' });
}

/** The main thread, which knows all slots of the process, brings the two ends of a channel together. */
class ThreadsOfProcess implements Neighbours {
  private onPort: ((port: MessagePort) => void) | undefined;
  private readonly calls = new Map<number, (found: boolean) => void>();
  private nextCallId = 0;

  constructor(private readonly main: MessagePort) {}

  handOver(address: DataAddress, port: MessagePort): Promise<boolean> {
    const callId = this.nextCallId++;
    return new Promise((resolve) => {
      this.calls.set(callId, resolve);
      const message: FromSlot = { kind: 'handOver', callId, address, port };
      this.main.postMessage(message, [port]);
    });
  }

  /** The main thread has the address from when the engine started. */
  accept(_address: DataAddress, onPort: (port: MessagePort) => void): () => void {
    this.onPort = onPort;
    return () => {
      this.onPort = undefined;
    };
  }

  offered(port: MessagePort): void {
    if (this.onPort === undefined) port.close();
    else this.onPort(port);
  }

  answered(callId: number, found: boolean): void {
    this.calls.get(callId)?.(found);
    this.calls.delete(callId);
  }
}

class SlotThreadInside {
  private engine: SlotRuntimePort | undefined;
  private reporting: Timer | undefined;

  constructor(
    private readonly port: MessagePort,
    private readonly start: SlotRuntimeFactory,
    private readonly neighbours: ThreadsOfProcess,
    private readonly reportIntervalMs: number,
  ) {}

  send(message: FromSlot): void {
    this.port.postMessage(message);
  }

  receive(message: ToSlot): void {
    switch (message.kind) {
      case 'start':
        // An unexpected rejection is uncaught on purpose: the thread ends and the main thread hears why.
        void this.startEngine(message.options);
        return;
      case 'submit':
        void this.submit(message);
        return;
      case 'cancel':
        this.engine?.cancel(message.attemptIds);
        return;
      case 'trigger':
        this.engine?.triggerCheckpoint(message.request);
        return;
      case 'complete':
        this.engine?.notifyCheckpointComplete(message.request);
        return;
      case 'aborted':
        this.engine?.notifyCheckpointAborted(message.request);
        return;
      case 'neighbour':
        this.neighbours.offered(message.port);
        return;
      case 'handedOver':
        this.neighbours.answered(message.callId, message.found);
        return;
      case 'close':
        void this.close();
        return;
    }
  }

  private async startEngine(options: Parameters<SlotRuntimeFactory>[0]): Promise<void> {
    try {
      this.engine = await this.start(options, this.events());
    } catch (error) {
      this.send({ kind: 'startFailed', error: toErrorInfo(error) });
      return;
    }
    this.reporting = every(new SystemClock(), this.reportIntervalMs, () => this.report());
    this.send({ kind: 'started', dataAddress: this.engine.dataAddress });
  }

  private async submit({ callId, deployment }: Extract<ToSlot, { kind: 'submit' }>): Promise<void> {
    try {
      if (this.engine === undefined) throw fromErrorInfo({ code: 'INTERNAL', message: 'submitted before it started' });
      await this.engine.submit(deployment);
      this.send({ kind: 'submitted', callId, error: undefined });
    } catch (error) {
      this.send({ kind: 'submitted', callId, error: toErrorInfo(error) });
    }
  }

  private events(): SlotRuntimeEvents {
    return {
      taskState: (report) => this.send({ kind: 'state', report }),
      checkpointAck: (ack) => this.send({ kind: 'ack', ack }),
      checkpointDecline: (decline) => this.send({ kind: 'decline', decline }),
      crashed: (_jobId, error) => this.send({ kind: 'crashed', error: toErrorInfo(error) }),
    };
  }

  private report(): void {
    const reports = this.engine?.attempts() ?? [];
    if (reports.length > 0) this.send({ kind: 'attempts', reports });
  }

  /** Ends by itself, so that what user code printed is flushed; the main thread terminates it when this takes long. */
  private async close(): Promise<void> {
    this.reporting?.cancel();
    await this.engine?.close();
    this.send({ kind: 'closed' });
    this.port.close();
  }
}
