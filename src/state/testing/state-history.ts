import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { expect } from 'vitest';
import { MemoryObjectStore } from '../../../ha/objects/memory-object-store.ts';
import { assignKeyedHandles } from '../../checkpoint/assign-state.ts';
import { keyGroupRange, subtaskForKeyGroup } from '../../contracts/key-groups.ts';
import type { KeyedStateHandle } from '../../contracts/state-handles.ts';
import type { Clock } from '../../kernel/clock.ts';
import { ManualClock } from '../../kernel/manual-clock.ts';
import { keyGroupFor } from '../key-group-hash.ts';
import type { KeyedStateBackend } from '../ports.ts';
import { createStateBackends, type StateBackends, type StateBackendsOptions } from '../state-backends.ts';
import { testScope } from './scope.ts';
import {
  applyOperation,
  type KeyedOperation,
  keyedOperation,
  MODEL_KEYS,
  type OpenStates,
  openStates,
  readAllStates,
  StateModel,
} from './state-model.ts';

/** What happens to a running operator: records, time, checkpoints and their ends, failures with a new parallelism. */
export type Step =
  | { readonly kind: 'records'; readonly operations: readonly KeyedOperation[] }
  | { readonly kind: 'time'; readonly byMs: number }
  | {
      readonly kind: 'checkpoints';
      /** Taken one after the other, with records in between, and written at the same time. */
      readonly taken: readonly {
        readonly before: readonly KeyedOperation[];
        readonly outcome: 'completed' | 'completed without notice' | 'aborted' | 'aborted without notice' | 'discarded';
        readonly kind: 'CHECKPOINT' | 'SAVEPOINT';
      }[];
      readonly during: readonly (readonly KeyedOperation[])[];
    }
  /** The user deletes savepoints, all but the newest checkpoint if that is one. */
  | { readonly kind: 'delete savepoints' }
  | { readonly kind: 'restart'; readonly parallelism: number; readonly options: number };

const operations = (maxLength: number) =>
  fc.oneof(fc.array(keyedOperation, { maxLength: 2 }), fc.array(keyedOperation, { maxLength }));

export const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('records' as const), operations: operations(40) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('time' as const), byMs: fc.integer({ min: 1, max: 60 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('checkpoints' as const),
      taken: fc.array(
        fc.record({
          before: operations(6),
          outcome: fc.constantFrom(
            'completed' as const,
            'completed' as const,
            'completed' as const,
            'completed without notice' as const,
            'aborted' as const,
            'aborted without notice' as const,
            'discarded' as const,
          ),
          kind: fc.constantFrom(
            'CHECKPOINT' as const,
            'CHECKPOINT' as const,
            'CHECKPOINT' as const,
            'SAVEPOINT' as const,
          ),
        }),
        { minLength: 1, maxLength: 3 },
      ),
      during: fc.array(operations(3), { maxLength: 60 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete savepoints' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('restart' as const),
      parallelism: fc.integer({ min: 1, max: 5 }),
      options: fc.nat(7),
    }),
  },
);

const MAX_PARALLELISM = 8;

interface Completed {
  readonly id: number;
  readonly kind: 'CHECKPOINT' | 'SAVEPOINT';
  readonly handles: readonly KeyedStateHandle[];
  readonly model: StateModel;
}

/**
 * Plays a history against backends and model. Objects are deleted as soon as the protocol allows it: when
 * no retained checkpoint and no savepoint refers to them.
 */
export class StateHistory {
  readonly objects = new MemoryObjectStore(new ManualClock());
  /** Objects that checkpoints referred to without having written them. */
  shared = 0;
  private nowMs = 1_000_000;
  private nextId = 1;
  private backends: { readonly backend: KeyedStateBackend; readonly states: OpenStates }[] = [];
  private factory: StateBackends | undefined;
  private model = new StateModel();
  private completed: Completed[] = [];
  private onYield: () => void = () => {};

  constructor(
    private readonly variants: readonly StateBackendsOptions[],
    private readonly retained: number,
  ) {}

  async play(steps: readonly Step[]): Promise<void> {
    try {
      await this.restart(2, 0);
      for (const one of steps) await this.perform(one);
      await this.restart(3, 1);
    } finally {
      await this.dispose();
    }
  }

  private async dispose(): Promise<void> {
    for (const { backend } of this.backends) backend.dispose();
    this.backends = [];
    await this.factory?.close();
  }

  private async perform(one: Step): Promise<void> {
    switch (one.kind) {
      case 'records':
        for (const operation of one.operations) this.record(operation);
        return;
      case 'time':
        this.nowMs += one.byMs;
        return;
      case 'checkpoints':
        return this.checkpoints(one);
      case 'delete savepoints': {
        const gone = this.completed.slice(0, -1).filter(({ kind }) => kind === 'SAVEPOINT');
        this.completed = this.completed.filter((completed) => !gone.includes(completed));
        // Its folder goes, whoever refers into it.
        return this.objects.delete(
          gone.flatMap(({ id, handles }) => keysOf(handles).filter((key) => key.includes(`/${id}/`))),
        );
      }
      case 'restart':
        return this.restart(one.parallelism, one.options);
    }
  }

  private record(operation: KeyedOperation): void {
    const index = subtaskForKeyGroup(
      MAX_PARALLELISM,
      this.backends.length,
      keyGroupFor(operation.key, MAX_PARALLELISM),
    );
    const { backend, states } = this.backends[index] as (typeof this.backends)[number];
    backend.setCurrentKey(operation.key);
    const seen = applyOperation(states, operation);
    const expected = this.model.apply(operation, this.nowMs);
    if (operation.operation.op === 'read' && !isDeepStrictEqual(seen, expected)) expect(seen).toStrictEqual(expected);
  }

  private async checkpoints({ taken, during }: Extract<Step, { kind: 'checkpoints' }>): Promise<void> {
    const cuts = taken.map(({ before, outcome, kind }) => {
      for (const operation of before) this.record(operation);
      const id = this.nextId++;
      const pending = this.backends.map(({ backend }) => backend.snapshot(id, { kind }));
      return { id, kind, outcome, pending, model: this.model.clone() };
    });
    const rest = [...during];
    this.onYield = () => {
      for (const operation of rest.shift() ?? []) this.record(operation);
    };
    const written = await Promise.all(
      cuts.map(async (cut) => {
        if (cut.outcome === 'discarded') {
          for (const one of cut.pending) one.discard();
          return [];
        }
        const results = await Promise.all(cut.pending.map((one) => one.write(new AbortController().signal)));
        return results.flatMap(({ handles }) => handles);
      }),
    );
    this.onYield = () => {};
    for (const [i, { id, kind, outcome, model }] of cuts.entries()) {
      const handles = written[i] ?? [];
      if (outcome.startsWith('completed')) {
        this.completed.push({ id, kind, handles, model });
        await this.subsume(handles);
        if (outcome === 'completed') for (const { backend } of this.backends) backend.checkpointCompleted(id);
      } else if (outcome.startsWith('aborted')) {
        await this.collect(handles);
        if (outcome === 'aborted') for (const { backend } of this.backends) backend.checkpointAborted(id);
      }
    }
  }

  private async subsume(handles: readonly KeyedStateHandle[]): Promise<void> {
    const before = this.completed.slice(0, -1);
    const own = new Set(before.flatMap((one) => keysOf(one.handles)));
    this.shared += new Set(keysOf(handles).filter((key) => own.has(key))).size;
    const checkpoints = this.completed.filter(({ kind }) => kind === 'CHECKPOINT').slice(-this.retained);
    const gone = this.completed.filter((one) => one.kind === 'CHECKPOINT' && !checkpoints.includes(one));
    this.completed = this.completed.filter((one) => !gone.includes(one));
    await this.collect(gone.flatMap((one) => one.handles));
  }

  /** Deletes what nothing completed refers to any more. */
  private async collect(handles: readonly KeyedStateHandle[]): Promise<void> {
    const kept = new Set(this.completed.flatMap((one) => keysOf(one.handles)));
    await this.objects.delete(keysOf(handles).filter((key) => !kept.has(key)));
  }

  private async restart(parallelism: number, options: number): Promise<void> {
    await this.dispose();
    const latest = this.completed.at(-1);
    this.model = latest?.model.clone() ?? new StateModel();
    const handles = latest?.handles ?? [];
    const clock: Pick<Clock, 'wallMs'> = { wallMs: () => this.nowMs };
    const factory = createStateBackends(
      {
        objects: this.objects,
        yieldNow: async () => this.onYield(),
        clock: clock as Clock,
        sliceRows: 1 + (options % 5),
      },
      this.variants[options % this.variants.length],
    );
    this.factory = factory;
    this.backends = await Promise.all(
      Array.from({ length: parallelism }, async (_, index) => {
        const range = keyGroupRange(MAX_PARALLELISM, parallelism, index);
        const backend = await factory.createKeyedStateBackend({
          scope: testScope(index),
          range,
          maxParallelism: MAX_PARALLELISM,
          restore: assignKeyedHandles(handles, range),
          signal: new AbortController().signal,
        });
        return { backend, states: openStates(backend) };
      }),
    );
    for (let key = 0; key < MODEL_KEYS; key++) {
      const index = subtaskForKeyGroup(MAX_PARALLELISM, parallelism, keyGroupFor(key, MAX_PARALLELISM));
      const { backend, states } = this.backends[index] as (typeof this.backends)[number];
      backend.setCurrentKey(key);
      const seen = readAllStates(states);
      const expected = this.model.readAll(key, this.nowMs);
      if (!isDeepStrictEqual(seen, expected)) expect(seen).toStrictEqual(expected);
    }
  }
}

function keysOf(handles: readonly KeyedStateHandle[]): string[] {
  return handles.flatMap(({ handle }) => (handle.kind === 'object' ? [handle.key] : []));
}
