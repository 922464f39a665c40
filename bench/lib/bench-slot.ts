import { columnarCodec } from '../../src/exchange/columnar/columnar-codec.ts';
import { rowCodec } from '../../src/exchange/row-codec.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import { MemoryObjectStore } from '../../ha/objects/memory-object-store.ts';
import { createStateBackends } from '../../src/state/state-backends.ts';
import { SlotRuntime } from '../../src/subtask/slot-runtime.ts';
import type { SlotRuntimeFactory } from '../../src/taskmanager/inline-slot-host.ts';
import { benchPrograms } from './bench-jobs.ts';

export type CodecName = 'rows' | 'columnar';

/** Slot engines as in production, but for programs that are benchmarks and state that stays in memory. */
export function benchSlots({ codec }: { readonly codec: CodecName }): SlotRuntimeFactory {
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
        codec: codec === 'columnar' ? columnarCodec() : rowCodec,
      },
      options,
    );
}
