import { expect, test } from 'vitest';
import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import type { TwoPhaseCommitSink } from '../../api/sink.ts';
import { FencedError } from '../../kernel/errors.ts';
import { asAttemptId, asJobId, asOperatorId, type DeploymentId } from '../../kernel/ids.ts';
import { silentLogger } from '../../kernel/log.ts';
import { ManualClock } from '../../kernel/manual-clock.ts';
import { SeededRandom } from '../../kernel/random.ts';
import { createStateBackends } from '../../state/state-backends.ts';
import type { OperatorContext, WrittenCut } from './operator.ts';
import { TwoPhaseSinkOperator } from './two-phase-sink-operator.ts';

const NEVER = new AbortController().signal;

interface Rig {
  readonly clock: ManualClock;
  readonly operator: TwoPhaseSinkOperator;
  readonly failures: unknown[];
  readonly calls: string[];
}

/** A sink whose calls are written down; `behaviour` may delay or refuse them. */
async function rig(
  behaviour: { commit?: (id: number) => Promise<void>; prepare?: (id: number) => Promise<void> } = {},
  restore?: { readonly checkpointId: number; readonly written: WrittenCut },
): Promise<Rig> {
  const clock = new ManualClock();
  const failures: unknown[] = [];
  const calls: string[] = [];
  let open: unknown[] = [];
  const sink: TwoPhaseCommitSink<unknown, unknown> = {
    name: 'Recorder',
    twoPhaseCommit: true,
    createWriter: () => ({
      open: async (restored) => void calls.push(`open ${JSON.stringify(restored)}`),
      write: (value) => void open.push(value),
      ready: () => undefined,
      prepareCommit: async (checkpointId) => {
        const records = open;
        open = [];
        await behaviour.prepare?.(checkpointId);
        return records;
      },
      commit: async (committables, { checkpointId }) => {
        calls.push(`commit ${checkpointId} ${JSON.stringify(committables)}`);
        await behaviour.commit?.(checkpointId);
      },
      close: async () => void calls.push('close'),
    }),
  };
  const context: OperatorContext = {
    clock,
    random: new SeededRandom(1),
    log: silentLogger,
    runtime: {
      jobId: 'j',
      jobName: 'job',
      taskName: 'task',
      subtaskIndex: 0,
      parallelism: 1,
      maxParallelism: 128,
      attemptNumber: 0,
      deployment: '1-1',
    },
    site: { name: 'Recorder', position: 0, chainLength: 1, taskName: 'task' },
    scope: {
      jobId: asJobId('1'.repeat(32)),
      deployment: '1-1' as DeploymentId,
      operatorId: asOperatorId('2'.repeat(32)),
      attemptId: asAttemptId('3'.repeat(32)),
      subtaskIndex: 0,
    },
    range: { first: 0, last: 127 },
    maxParallelism: 128,
    stateBackends: createStateBackends({ objects: new MemoryObjectStore(clock) }),
    restore: restore && { checkpointId: restore.checkpointId, snapshot: restore.written.snapshot },
    signal: NEVER,
    fail: (error) => void failures.push(error),
  };
  const operator = new TwoPhaseSinkOperator(sink, context);
  await operator.open();
  return { clock, operator, failures, calls };
}

test('a commit that keeps failing is given up after bounded tries, and fails the task', async () => {
  const { clock, operator, failures, calls } = await rig({ commit: () => Promise.reject(new Error('away')) });
  operator.write('a');
  await operator.snapshot(1).write(NEVER);
  const done = operator.checkpointCompleted(1);
  await clock.advance(60_000);
  await done;
  expect(calls.filter((call) => call.startsWith('commit')).length).toBe(10);
  expect(failures).toMatchObject([{ message: expect.stringContaining('failed to commit checkpoint 1: away') }]);
});

test('a commit that is refused as an older deployment is not tried again', async () => {
  const { operator, failures, calls } = await rig({
    commit: () => Promise.reject(new FencedError('a newer one wrote')),
  });
  operator.write('a');
  await operator.snapshot(1).write(NEVER);
  await operator.checkpointCompleted(1);
  expect(calls.filter((call) => call.startsWith('commit')).length).toBe(1);
  expect(failures).toMatchObject([{ code: 'FENCED' }]);
});

test('a slow preparation keeps the order, and the state of a checkpoint holds nothing of later ones', async () => {
  const release = new Map<number, () => void>();
  const prepare = (id: number) => new Promise<void>((resolve) => release.set(id, resolve));
  const { operator, calls } = await rig({ prepare });
  operator.write('a');
  const first = operator.snapshot(1).write(NEVER);
  operator.write('b');
  const second = operator.snapshot(2).write(NEVER);
  release.get(2)?.();
  release.get(1)?.();
  const written = await first;
  await second;
  await operator.checkpointCompleted(2);
  expect(calls).toEqual(['open []', 'commit 1 ["a"]', 'commit 2 ["b"]']);
  if (written === undefined) throw new Error('there is state');
  const restored = await rig({}, { checkpointId: 1, written });
  expect(restored.calls).toEqual(['open ["a"]']);
});

test('without checkpoints everything is committed at the end, under an id after the restored one', async () => {
  const { operator, calls } = await rig();
  operator.write('a');
  await operator.finish();
  await operator.close();
  expect(calls).toEqual(['open []', 'commit 1 ["a"]', 'close']);
});
