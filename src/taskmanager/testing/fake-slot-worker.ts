import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { MessageChannel, threadId } from 'node:worker_threads';
import { type AttemptReport, NO_IO, type SlotDeployment } from '../../contracts/task.ts';
import type { Neighbours } from '../../exchange/port-transport.ts';
import { MillraceError } from '../../kernel/errors.ts';
import type { AttemptId } from '../../kernel/ids.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../../subtask/slot-runtime-port.ts';
import { runSlotWorker } from '../slot-worker.ts';

/** What the tasks of {@link BehavingEngine} do, by attempt number. */
export const BEHAVIOURS = [
  'run',
  'loop',
  'eat-memory',
  'exit',
  'throw-later',
  'refuse',
  'grow-state',
  'greet-neighbour',
] as const;

/** Ports that the engines of `greet-neighbour` look for each other at, and one where nobody is. */
const NEIGHBOUR_PORTS = [7_001, 7_002, 7_003] as const;

interface Data {
  readonly breakOnLoad?: boolean;
  /** Takes a while to load and leaves a file there when it has. */
  readonly slowly?: { readonly ms: number; readonly folder: string };
}

await runSlotWorker<Data>(async (data, neighbours) => {
  if (data.breakOnLoad === true) throw new Error('no such object store');
  if (data.slowly !== undefined) {
    await wait(data.slowly.ms);
    writeFileSync(join(data.slowly.folder, `loaded-${threadId}`), '');
  }
  return async (options, events) => {
    if (options.name === 'cannot-listen') throw new MillraceError('UNAVAILABLE', 'port in use');
    const address = { host: options.advertisedHost ?? 'none', port: options.listenPort ?? -1 };
    return new BehavingEngine(events, address, neighbours);
  };
});

/** An engine whose user code is as bad as user code can be. */
class BehavingEngine implements SlotRuntimePort {
  private readonly held = new Map<AttemptId, AttemptReport>();
  private readonly eaten: unknown[] = [];
  private readonly state = new Map<string, unknown>();

  constructor(
    private readonly events: SlotRuntimeEvents,
    readonly dataAddress: { host: string; port: number },
    private readonly neighbours: Neighbours,
  ) {
    neighbours.accept(dataAddress, (port) => {
      port.on('message', (bytes: Uint8Array) => port.postMessage(bytes.map((byte) => byte + 1)));
    });
  }

  async submit(deployment: SlotDeployment): Promise<void> {
    for (const { attemptId, attemptNumber, vertexId, subtaskIndex } of deployment.tasks) {
      const behaviour = BEHAVIOURS[attemptNumber] ?? 'run';
      if (behaviour === 'refuse') throw new MillraceError('PROGRAM', 'the bundle does not load', { hint: 'Fix it.' });
      this.become({
        ...{ jobId: deployment.jobId, deployment: deployment.deployment, allocationId: deployment.allocationId },
        ...{ attemptId, attemptNumber, vertexId, subtaskIndex, state: 'RUNNING', endOfData: false, io: NO_IO },
      });
      setImmediate(() => this.misbehave(behaviour));
    }
  }

  cancel(attemptIds: readonly AttemptId[]): void {
    for (const attemptId of attemptIds) {
      const report = this.held.get(attemptId);
      if (report !== undefined) this.become({ ...report, state: 'CANCELED' });
    }
  }

  triggerCheckpoint({ checkpointId }: { readonly checkpointId: number }): void {
    for (const { jobId, deployment, vertexId, subtaskIndex, attemptId } of this.held.values()) {
      const bytes = new Uint8Array([1, 2, 3]);
      this.events.checkpointAck({
        ...{ jobId, deployment, vertexId, subtaskIndex, attemptId, checkpointId },
        operators: [
          { operatorId: vertexId as never, keyed: [], operator: [{ states: [], handle: { kind: 'inline', bytes } }] },
        ],
        ...{ stateBytes: 3, alignmentMs: 0, syncMs: 0, asyncMs: 0 },
      });
    }
  }

  notifyCheckpointComplete(): void {}

  notifyCheckpointAborted(): void {}

  attempts(): readonly AttemptReport[] {
    return [...this.held.values()].map((report) => ({ ...report, io: { ...report.io, readRecords: 42 } }));
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}

  /** Counts the neighbours that answer in `readRecords` of the last report. */
  private async greetNeighbours(): Promise<void> {
    let answers = 0;
    for (const port of NEIGHBOUR_PORTS) {
      const { port1, port2 } = new MessageChannel();
      const found = await this.neighbours.handOver({ host: this.dataAddress.host, port }, port2);
      if (found) {
        port1.postMessage(new Uint8Array([port & 0xff]));
        const [bytes] = (await once(port1, 'message')) as [Uint8Array];
        if (bytes[0] === (port & 0xff) + 1) answers++;
      }
      port1.close();
    }
    for (const report of this.held.values()) {
      this.become({ ...report, state: 'FINISHED', io: { ...NO_IO, readRecords: answers } });
    }
  }

  private become(report: AttemptReport): void {
    this.held.set(report.attemptId, report);
    this.events.taskState(report);
  }

  private misbehave(behaviour: (typeof BEHAVIOURS)[number]): void {
    switch (behaviour) {
      case 'loop':
        for (;;);
      case 'eat-memory':
        for (;;) this.eaten.push(new Array(100_000).fill(Math.random()));
      case 'exit':
        process.exit(3);
        break;
      case 'greet-neighbour':
        void this.greetNeighbours();
        break;
      case 'throw-later':
        setImmediate(() => {
          throw new TypeError('x is not a function');
        });
        break;
      case 'grow-state': {
        // A little at a time, as an engine does that yields between slices.
        for (let i = 0; i < 20_000; i++) this.state.set(`key ${this.state.size}`, { count: i });
        setImmediate(() => this.misbehave(behaviour));
        break;
      }
      default:
        break;
    }
  }
}
