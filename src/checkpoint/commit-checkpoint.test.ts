import { expect, test } from 'vitest';
import { FencedError, MillraceError, UnavailableError } from '../kernel/errors.ts';
import { silentLogger } from '../kernel/log.ts';
import { ManualClock } from '../kernel/manual-clock.ts';
import { SeededRandom } from '../kernel/random.ts';
import { type AddFate, emptyMetadata, JOB, ModelCheckpointStores, token } from './checkpoint.fixture.ts';
import { type CommitOutcome, commitCheckpoint } from './commit-checkpoint.ts';

const refuse = (error: MillraceError): AddFate => ({ refuse: error });
const AWAY = refuse(new UnavailableError('S3 is away'));

/** How a commit ends within a minute, if it does. */
async function commit(fates: AddFate[], options: { worthwhile?: () => boolean; away?: boolean } = {}) {
  const clock = new ManualClock();
  const stores = new ModelCheckpointStores();
  stores.fates = [...fates];
  if (options.away === true) stores.away = new UnavailableError('etcd is away');
  const controller = new AbortController();
  let outcome: CommitOutcome | undefined;
  const running = commitCheckpoint(
    { clock, random: new SeededRandom(1), log: silentLogger, store: stores.completed(JOB) },
    emptyMetadata(5, '1-1'),
    token(1),
    { signal: controller.signal, worthwhile: options.worthwhile ?? (() => true) },
  ).then((result) => {
    outcome = result;
  });
  await clock.advance(60_000);
  const within = outcome;
  controller.abort();
  await running;
  return { outcome: within, stores };
}

test('a lost answer is read back: the pointer that is there completes the checkpoint', async () => {
  const { outcome, stores } = await commit(['lost']);
  expect(outcome).toMatchObject({ kind: 'completed', completed: { metadataKey: 'metadata-5' } });
  expect(stores.fates).toEqual([]);
});

test('a lost answer to what did not happen is tried again', async () => {
  expect((await commit(['lost-undone', 'lost-undone', 'ok'])).outcome?.kind).toBe('completed');
});

test('while the store cannot even be read, nothing is concluded', async () => {
  const fates = Array.from({ length: 100 }, (): AddFate => 'lost-undone');
  const { outcome } = await commit(fates, { away: true, worthwhile: () => false });
  expect(outcome).toBeUndefined();
});

test('after doubt a plain refusal is no proof any more', async () => {
  const fates: AddFate[] = ['lost-undone', ...Array.from({ length: 100 }, () => AWAY)];
  expect((await commit(fates, { worthwhile: () => false })).outcome).toBeUndefined();
});

test('a store that is plainly away is tried as long as it is worth it, then nothing was written', async () => {
  expect((await commit([AWAY, AWAY])).outcome?.kind).toBe('completed');
  expect((await commit([AWAY], { worthwhile: () => false })).outcome).toMatchObject({
    kind: 'failed',
    keepObjects: false,
    error: { code: 'UNAVAILABLE' },
  });
});

test('what can never be written fails at once', async () => {
  expect((await commit([refuse(new MillraceError('TOO_LARGE', 'x'))])).outcome).toMatchObject({ kind: 'failed' });
});

test('a job that is gone keeps its objects for its own clean-up', async () => {
  expect((await commit([refuse(new MillraceError('NOT_FOUND', 'ended'))])).outcome).toMatchObject({
    kind: 'failed',
    keepObjects: true,
  });
});

test('a conflict by a change elsewhere is tried again; an error that never ends is given up with its objects kept', async () => {
  const conflict = refuse(new MillraceError('CONFLICT', 'the job changed'));
  expect((await commit([conflict])).outcome?.kind).toBe('completed');
  const bug = Array.from({ length: 20 }, () => refuse(new MillraceError('INTERNAL', 'bug')));
  expect((await commit(bug)).outcome).toMatchObject({ kind: 'failed', keepObjects: true });
});

test('a fence ends it', async () => {
  expect((await commit(['lost-undone', refuse(new FencedError('no longer'))])).outcome?.kind).toBe('fenced');
});
