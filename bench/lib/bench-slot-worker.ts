import { runSlotWorker } from '../../src/taskmanager/slot-worker.ts';
import { type BenchSlotOptions, benchSlots } from './bench-slot.ts';

/** The entry of a slot's thread. */
await runSlotWorker<BenchSlotOptions>((data, neighbours) => Promise.resolve(benchSlots(data, neighbours)));
