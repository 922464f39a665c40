import type { Neighbours } from '../../src/exchange/port-transport.ts';
import { type CodecName, recordCodec } from '../../src/exchange/record-codecs.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { createStateBackends } from '../../src/state/state-backends.ts';
import { SlotRuntime } from '../../src/subtask/slot-runtime.ts';
import type { SlotRuntimeFactory } from '../../src/taskmanager/inline-slot-host.ts';
import { benchPrograms } from './bench-jobs.ts';

export interface BenchSlotOptions {
  readonly codec: CodecName;
  /** How slots of one process reach each other. Default: ports, as in production. */
  readonly network?: 'ports' | 'tcp';
}

/** Slot engines as in production, but for programs that are benchmarks and state that stays in memory. */
export function benchSlots(
  { codec, network = 'ports' }: BenchSlotOptions,
  neighbours?: Neighbours,
): SlotRuntimeFactory {
  const clock = new SystemClock();
  const random = new SystemRandom();
  const stateBackends = createStateBackends({ objects: new MemoryObjectStore(clock) });
  return (options, events) =>
    SlotRuntime.start(
      {
        clock,
        random,
        log: silentLogger,
        programs: benchPrograms,
        stateBackends,
        events,
        codec: recordCodec(codec),
        ...(network === 'ports' && neighbours !== undefined ? { neighbours } : {}),
      },
      options,
    );
}
