import { parentPort, workerData } from 'node:worker_threads';
import { present } from '../../src/kernel/assert.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { UnavailableError } from '../../src/kernel/errors.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { createCoordination } from '../coordination/create-coordination.ts';
import { type KeptLease, LoopLeaseKeeper } from './lease-keeper.ts';
import {
  type FromLeaseThread,
  type LeaseThreadData,
  monotonicUs,
  type ToLeaseThread,
} from './lease-thread-protocol.ts';

/**
 * The thread that renews a master's lease, over a connection of its own: whatever the main thread is busy
 * with, the lease does not wait for it. It stops when the main thread gives no sign for too long: a process
 * whose event loop hangs must not lead for ever.
 */
const port = present(parentPort, 'the port to the main thread');
const { coordination: options, times, patienceMs, pat } = workerData as LeaseThreadData;

const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
const patCell = new BigInt64Array(pat);
const coordination = await createCoordination(deps, options);
const keeper = new LoopLeaseKeeper({ ...deps, coordination: whileMainThreadLives(coordination) }, times);
const kept = new Map<number, KeptLease>();
/** From this thread's clock to the one that all threads share. */
const originUs = monotonicUs() - BigInt(Math.round(deps.clock.nowMs() * 1_000));

function tell(message: FromLeaseThread): void {
  port.postMessage(message);
}

function whileMainThreadLives(real: Coordination): Pick<Coordination, 'keepAlive'> {
  return {
    keepAlive: (lease) => {
      const silentMs = Number(monotonicUs() - Atomics.load(patCell, 0)) / 1_000;
      if (silentMs <= patienceMs) return real.keepAlive(lease);
      return Promise.reject(new UnavailableError(`the main thread has given no sign for ${Math.round(silentMs)} ms`));
    },
  };
}

port.on('message', (message: ToLeaseThread) => {
  switch (message.kind) {
    case 'keep': {
      const { id } = message;
      const cell = new BigInt64Array(message.alive);
      kept.set(
        id,
        keeper.keep(message.lease, {
          renewed: (aliveUntilMs) => {
            const aliveUntilUs = originUs + BigInt(Math.round(aliveUntilMs * 1_000));
            Atomics.store(cell, 0, aliveUntilUs);
            tell({ kind: 'renewed', id, aliveUntilUs });
          },
          gone: () => tell({ kind: 'gone', id }),
        }),
      );
      return;
    }
    case 'renew':
      kept.get(message.id)?.renewSoon();
      return;
    case 'release':
      kept.get(message.id)?.release();
      kept.delete(message.id);
      return;
    case 'close':
      void keeper
        .close()
        .then(() => coordination.close())
        .finally(() => port.close());
      return;
  }
});
tell({ kind: 'ready' });
