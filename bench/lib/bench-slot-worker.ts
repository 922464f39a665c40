import { runSlotWorker } from '../../src/taskmanager/slot-worker.ts';
import { benchSlots, type CodecName } from './bench-slot.ts';

/** The entry of a slot's thread. */
await runSlotWorker<{ readonly codec: CodecName }>((data) => Promise.resolve(benchSlots(data)));
