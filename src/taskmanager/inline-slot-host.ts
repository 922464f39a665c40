import { MillraceError } from '../kernel/errors.ts';
import type { SlotRuntimeEvents, SlotRuntimePort } from '../subtask/slot-runtime-port.ts';
import type { SlotRuntimeOptions } from '../subtask/slot-runtime.ts';
import type { OpenSlotRequest, SlotHost } from './slot-host.ts';

/** Starts an engine; `main` gives `SlotRuntime.start` with what it depends on. */
export type SlotRuntimeFactory = (options: SlotRuntimeOptions, events: SlotRuntimeEvents) => Promise<SlotRuntimePort>;

export interface InlineSlotHostOptions {
  readonly listenHost?: string;
  readonly advertisedHost?: string;
}

/**
 * Engines on the caller's own thread, for the mini cluster and the simulator: nothing isolates user code
 * here, so an endless loop in it hangs the process.
 */
export class InlineSlotHost implements SlotHost {
  private readonly engines = new Set<SlotRuntimePort>();
  private closed = false;

  constructor(
    private readonly start: SlotRuntimeFactory,
    private readonly options: InlineSlotHostOptions = {},
  ) {}

  async open(request: OpenSlotRequest): Promise<SlotRuntimePort> {
    if (this.closed) throw new MillraceError('CLOSED', 'the slot host is closed');
    const { name, listenPort, events } = request;
    const engine = await this.start({ name, listenPort, ...this.options }, events);
    if (this.closed) {
      await engine.close();
      throw new MillraceError('CLOSED', 'the slot host was closed while the slot started');
    }
    this.engines.add(engine);
    const close = engine.close.bind(engine);
    // An engine closed by its user is not ours to close any more.
    engine.close = () => {
      this.engines.delete(engine);
      return close();
    };
    return engine;
  }

  async close(): Promise<void> {
    this.closed = true;
    const engines = [...this.engines];
    this.engines.clear();
    await Promise.all(engines.map((engine) => engine.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
