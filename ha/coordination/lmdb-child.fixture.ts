import { SystemClock } from '../../src/kernel/clock.ts';
import { isMillraceError } from '../../src/kernel/errors.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import type { Entry } from './coordination.ts';
import { LmdbCoordination } from './lmdb-coordination.ts';
import { WriterLock } from './writer-lock.ts';

/**
 * A process that `lmdb-processes.it.test.ts` kills while it works: it adds one to the shared counter
 * again and again, by compare and set, and in the same transaction to a counter of its own, and
 * says so (its revision and the count) only after the transaction was answered.
 *
 * Arguments: directory, name, mode (`count`, or `hold`: stop inside a write transaction).
 */
const [directory = '', name = '', mode = 'count'] = process.argv.slice(2);
const store = await LmdbCoordination.start({ clock: new SystemClock(), log: silentLogger }, { directory });

process.send?.({ kind: 'ready' });
if (mode === 'hold') await holdTheLock();
else await count();

async function count(): Promise<never> {
  for (;;) {
    const shared = await store.get('shared');
    const own = await store.get(`own/${name}`);
    const next = (entry: Entry | undefined) => String(Number(entry?.value ?? '0') + 1);
    const value = next(shared);
    try {
      const { succeeded, revision } = await store.txn({
        guards: [{ key: 'shared', modRevision: shared?.modRevision ?? 0n }],
        then: [
          { kind: 'put', key: 'shared', value },
          { kind: 'put', key: `own/${name}`, value: next(own) },
          { kind: 'put', key: `log/${value.padStart(8, '0')}`, value: name },
        ],
      });
      if (succeeded) process.send?.({ kind: 'added', revision: String(revision), value: Number(value) });
    } catch (error) {
      // A busy machine may make a write late; the next round reads what became of it.
      if (!isMillraceError(error, 'UNKNOWN_OUTCOME') && !isMillraceError(error, 'UNAVAILABLE')) throw error;
      process.send?.({ kind: 'doubt', code: error.code });
    }
  }
}

/** Stands still in the middle of a write transaction, lock in hand, as a frozen process may. */
async function holdTheLock(): Promise<void> {
  const lock = await WriterLock.of(directory, new SystemClock(), silentLogger);
  await lock.acquire(() => true);
  const inside = store as unknown as {
    db: { transactionSync(work: () => void): void; putSync(key: string, value: string): void };
  };
  inside.db.transactionSync(() => {
    inside.db.putSync('e/torn', JSON.stringify({ v: 'half', m: '1', c: '1' }));
    process.send?.({ kind: 'holding' });
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });
}
