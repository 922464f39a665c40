/** A known bug: exact text of the compiled product and what stands in its place. */
export interface Mutant {
  readonly name: string;
  /** Below `dist/`. */
  readonly file: string;
  readonly edits: readonly { readonly find: string; readonly replace: string }[];
  /** What the bug is, and which promise it breaks. */
  readonly breaks: string;
}

function mutant(name: string, file: string, breaks: string, ...edits: readonly (readonly [string, string])[]): Mutant {
  return { name, file, breaks, edits: edits.map(([find, replace]) => ({ find, replace })) };
}

const WRITER = 'ha/stores/fenced-writer.js';
const CHECKPOINTS = 'ha/stores/checkpoint-stores.js';
const GRAPHS = 'ha/stores/job-graph-store.js';
const RESULTS = 'ha/stores/job-result-store.js';
const TERM = 'src/dispatcher/dispatcher-term.js';
const COORDINATOR = 'src/checkpoint/checkpoint-coordinator.js';
const DRIVER = 'src/checkpoint/checkpoint-driver.js';
const RESTORABLE = 'src/checkpoint/restorable-objects.js';
const SINK = 'src/subtask/operators/two-phase-sink-operator.js';
const ALIGNER = 'src/subtask/barrier-aligner.js';

/** Planted one at a time by `npm run sim:mutants`. */
export const MUTANTS: readonly Mutant[] = [
  mutant('drop-the-fence', WRITER, 'mutations are not guarded by the token (2)', [
    '{ key: leader, modRevision: token },\n                        ...(creates',
    '...(creates',
  ]),
  mutant('doubt-not-cast', WRITER, 'a copy of a creation may arrive after what it created was removed (7)', [
    'if (creates && unanswered)',
    'if (false)',
  ]),
  mutant('unknown-is-failure', WRITER, 'a lost answer is reported as "nothing happened" (11)', [
    'lost ??= error;',
    "throw Object.assign(error, { code: 'UNAVAILABLE' });",
  ]),
  mutant('no-read-back', WRITER, 'after a lost answer the own change is taken for somebody else’s (7, 11)', [
    'if (lost !== undefined && change.isDone(seen))',
    'if (false)',
  ]),
  mutant(
    'pointer-before-object',
    'ha/stores/store-deps.js',
    'the pointer may be written before its object is there (5, 7)',
    ['await deps.objects.put(objectKey, bytes);', 'deps.objects.put(objectKey, bytes).catch(() => {});'],
  ),
  mutant(
    'objects-before-pointers',
    CHECKPOINTS,
    'subsumed checkpoints lose their objects before their pointers (7)',
    [
      'for (const part of chunks(beyond, SUBSUME_CHUNK)) {',
      'await this.removeObjectsOf(going);\nfor (const part of chunks(beyond, SUBSUME_CHUNK)) {',
    ],
    [
      'const own = await this.pointers();',
      'const own = (await this.pointers()).filter(({ entry }) => !gone.some((one) => one.entry.key === entry.key));',
    ],
  ),
  mutant(
    'subsume-shared-state',
    'ha/stores/checkpoint-pointers.js',
    'objects that a kept checkpoint shares are deleted (7)',
    ['doomed.delete(key);', ';'],
  ),
  mutant('subsume-the-newest', CHECKPOINTS, 'the newest checkpoints are subsumed instead of the oldest (6)', [
    'record.checkpointId < oldestKept.record.checkpointId',
    'record.checkpointId >= oldestKept.record.checkpointId',
  ]),
  mutant('checkpoint-of-an-ended-job', CHECKPOINTS, 'a checkpoint completes although its job has ended (7)', [
    'unchanged(job.key, job.modRevision),\n                    absent(key),\n                    ...extra',
    'absent(key),\n                    ...extra',
  ]),
  mutant(
    'reuse-a-checkpoint-id',
    'ha/stores/checkpoint-id-counter.js',
    'ids are counted from the newest pointer of nobody: one is given twice (6)',
    ['decodeRecord(COUNTER_RECORD, counter).last) + 1;', 'decodeRecord(COUNTER_RECORD, counter).last - 1) + 1;'],
  ),
  mutant('second-life', GRAPHS, 'a submission repeated after the end of its job runs it again (3, 4)', [
    'const identities = [keys.job(graph.jobId), keys.result(graph.jobId)];',
    'const identities = [keys.job(graph.jobId)];',
  ]),
  mutant('forget-the-cancel', GRAPHS, 'a wish to cancel is not stored (12)', [
    'const { keys, coordination, clock, writer } = this.deps;\n        const job = await',
    'if (jobId) return;\n        const { keys, coordination, clock, writer } = this.deps;\n        const job = await',
  ]),
  mutant('graph-lost-after-refusal', GRAPHS, 'the graph of a stored job is deleted by its second submission (7)', [
    "await deleteObjects(this.deps, 'graph of a refused submission', [object.objectKey]);",
    "for await (const { key } of this.deps.objects.list(keys.jobObjects(graph.jobId))) if (key.includes('/graph-')) await deleteObjects(this.deps, 'x', [key]);",
  ]),
  mutant('answered-before-durable', TERM, 'a client is told of a job that is not stored yet (3)', [
    'result = await this.fenced(() => this.deps.graphs.submit(graph, this.token, options));',
    "this.fenced(() => this.deps.graphs.submit(graph, this.token, options)).catch(() => {}); result = { jobId: graph.jobId, outcome: 'created' };",
  ]),
  mutant('job-stays-beside-its-result', RESULTS, 'a job with a result is still listed as to be run (4, 7)', [
    "{ kind: 'delete', key: jobKey },",
    '',
  ]),
  mutant('counter-left-behind', 'ha/stores/job-clean-up.js', 'clean-up forgets the checkpoint counter (7)', [
    'if (counter === undefined)\n        return;',
    'if (counter !== undefined || counter === undefined)\n        return;',
  ]),
  mutant('dirty-for-ever', TERM, 'a new leader does not finish the clean-ups of the one before (7, 14)', [
    'if (dirty)\n',
    'if (false)\n',
  ]),
  mutant('cancel-lost-on-failover', TERM, 'a recovered job is not told that it was cancelled (12)', [
    'this.deps.jobMasters.start(graph, this.token, options)',
    'this.deps.jobMasters.start(graph, this.token, { ...options, cancelRequested: false })',
  ]),
  mutant('end-recorded-once', TERM, 'the end of a job is recorded in one try, which may fail (14)', [
    "await this.patiently('record the end of a job', () => this.deps.results.complete(result, details, this.token));",
    'await this.fenced(() => this.deps.results.complete(result, details, this.token));',
  ]),
  mutant('unlisted-is-none', TERM, 'a leader that cannot list its jobs believes that there are none (14)', [
    'Promise.all([this.deps.results.list(), this.deps.graphs.list()])',
    'Promise.all([this.deps.results.list(), this.deps.graphs.list()]).catch(() => [[], []])',
  ]),
  mutant(
    'doubtful-submission-forgotten',
    TERM,
    'a job that was stored by a submission with a lost answer is not started (14)',
    ["if (isMillraceError(error, 'UNKNOWN_OUTCOME'))\n", 'if (false)\n'],
    ["if (result.outcome === 'duplicate')\n", 'if (false)\n'],
    ['if (this.recovered && !this.suspended)', 'if (false)'],
  ),
  mutant(
    'lead-after-the-deadline',
    'ha/election/leadership.js',
    'a leader that could not renew its lease leads on (1)',
    ['return nowMs < deadlineMs ?', 'return true ?'],
  ),
  mutant('accept-lower-tokens', 'src/taskmanager/leader-contact.js', 'a worker obeys a leader of the past (2)', [
    'if (event.token < contact.highestToken)\n',
    'if (false)\n',
  ]),
  mutant(
    'free-a-slot-that-runs',
    'src/taskmanager/task-manager.js',
    'a slot is given to the next job while its engine still runs (10)',
    ['await this.slots.get(slotIndex)?.close();', ';'],
  ),
  // That a worker frees the slots of a released job itself is no mutant: the resource manager frees them, too.
  mutant(
    'unclaimed-slots-stay',
    'src/resourcemanager/resource-manager.js',
    'a slot that was given to a job when that had ended is never free again (4, 10)',
    ["this.freeInBackground(worker, allocationId, 'no job of the present leader claims it');", ';'],
  ),
  mutant(
    'lost-worker-not-told',
    'src/resourcemanager/resource-manager.js',
    'a job does not hear that its worker is lost (14)',
    ["this.emit({ kind: 'lost', taskManagerId, reason });", ''],
  ),
  mutant(
    'restore-the-oldest',
    'src/jobmaster/find-restore-point.js',
    'a job restarts from the oldest retained checkpoint (6, 8)',
    ['of ids.toReversed()', 'of ids'],
  ),
  mutant(
    'unreadable-means-fresh',
    'src/jobmaster/find-restore-point.js',
    'a job whose checkpoint cannot be read now starts from nothing (6, 8)',
    [
      "if (!isUnreadable(error) || fallback === 'none')",
      "if (fallback === 'none') return { kind: 'restored', restore: { kind: 'fresh' }, passedOver };\nif (!isUnreadable(error))",
    ],
  ),
  mutant(
    'restore-beside-a-commit',
    'src/jobmaster/job-master.js',
    'the newest checkpoint is looked for while one is still being written (6, 8)',
    [
      'async restore() {\n        // A checkpoint whose outcome is not yet known may be the newest one.\n        await this.checkpoints.settled();',
      'async restore() {',
    ],
  ),
  mutant(
    'abort-while-committing',
    COORDINATOR,
    'a checkpoint whose pointer is being written is aborted and its objects discarded (7, 11)',
    ["if (checkpoint === undefined || checkpoint.stage === 'committing')", 'if (checkpoint === undefined)'],
    ["if (pending.stage === 'committing')\n            continue; // K5", ''],
  ),
  mutant(
    'unknown-commit-fails',
    'src/checkpoint/commit-checkpoint.js',
    'a checkpoint whose answer was lost is declared failed and its objects discarded (7, 11)',
    ['doubt = true;', "return { kind: 'failed', error: info, keepObjects: false };"],
  ),
  mutant(
    'one-notice-only',
    'src/checkpoint/checkpoint-notifier.js',
    'a lost notice of completion is not repeated (14)',
    ['await sleep(clock, backoffMs(NOTICE_BACKOFF, attempt, random), this.stopped.signal);', 'return true;'],
  ),
  mutant(
    'discard-referenced-state',
    RESTORABLE,
    'objects of an aborted checkpoint go although a completed one shares them (7)',
    // Either of the two would do: names tell who wrote an object, and the master knows what it has restored.
    ['.filter((key) => !isBorrowed(key, ack))', ''],
    ['if (set.has(key))\n                    return false;', ';'],
  ),
  mutant(
    'state-of-a-subsumed-checkpoint',
    DRIVER,
    'what a finished task left is taken from a checkpoint that is being subsumed (5, 7)',
    ['const present = this.run;\n', 'const present = this.run;\nconst early = present?.last;\n'],
    ['this.write(checkpoint, run, present?.last)', 'this.write(checkpoint, run, early)'],
  ),
  mutant(
    'pointer-behind-the-stop',
    DRIVER,
    'a checkpoint completes behind the savepoint with which its job stops (6)',
    ['behindStop(checkpoint, present) ?? ', ''],
  ),
  mutant(
    'asked-in-circles',
    COORDINATOR,
    'while no checkpoint id can be had, a savepoint that is asked for asks for one again and again at once (14)',
    [
      'if (state.requests.length > 0)\n        return Math.max(run.notBeforeMs, nowMs);',
      'if (state.requests.length > 0)\n        return nowMs;',
    ],
  ),
  mutant('commit-by-a-savepoint', COORDINATOR, 'sinks are told of a savepoint, and commit by it (8)', [
    'const notify = isSavepoint && checkpoint.stop === undefined ? undefined : current?.deployment;',
    'const notify = current?.deployment;',
  ]),
  mutant(
    'operations-not-taken-over',
    'src/jobmaster/job-master.js',
    'a savepoint or stop that was acknowledged is forgotten when another master takes over (12)',
    ['for (const operation of pending) {', 'for (const operation of []) {'],
  ),
  mutant('savepoint-that-borrows', DRIVER, 'a savepoint refers to what finished tasks left in a checkpoint (5)', [
    'if (location !== undefined) {',
    'if (false) {',
  ]),
  mutant('savepoint-subsumed', CHECKPOINTS, 'a savepoint is subsumed like a checkpoint (7, 12)', [
    "then: part.flatMap((pointer) => pointer.record.kind === 'SAVEPOINT'",
    'then: part.flatMap((pointer) => false',
  ]),
  mutant(
    'drained-goes-on',
    'src/taskmanager/attempt-ledger.js',
    'no leader learns that a task was drained: when the stop failed with its leader the task goes on, at its end (8, 14)',
    // Both rules of the leader live by what workers report: the verdict on adoption, and the one on what is reported later.
    ['record(report) {', 'record({ drained: _drained, ...report }) {'],
    ['const drained = entry.report.drained ?? report.drained;', 'const drained = undefined;'],
  ),
  mutant(
    'stop-forgotten-on-restart',
    'src/jobmaster/find-restore-point.js',
    'a job that failed after the savepoint with which it stops reads on (8, 12)',
    ['stopped = listed.some(({ stop }) => stop !== undefined);', ';'],
  ),
  mutant(
    'restart-from-a-savepoint',
    'src/jobmaster/find-restore-point.js',
    'a job restarts from a savepoint, by which no sink has committed (6, 8)',
    ["ids = listed.filter(({ kind, stop }) => kind === 'CHECKPOINT' || stop !== undefined);", 'ids = listed;'],
  ),
  mutant(
    'late-answer-counts',
    COORDINATOR,
    'an answer to a checkpoint of the past counts for the present one (5)',
    ["if (task?.attemptId !== ack.attemptId || task.deployment !== ack.deployment)\n        return 'unknown';", ''],
    [
      'const pending = state.pending.get(ack.checkpointId);\n    if (pending === undefined) {',
      'const pending = state.pending.get(ack.checkpointId) ?? [...state.pending.values()][0];\n    if (pending === undefined) {',
    ],
    [
      'const pending = state.pending.get(ack.checkpointId);\n    const index',
      'const pending = state.pending.get(ack.checkpointId) ?? [...state.pending.values()][0];\n    const index',
    ],
  ),
  mutant(
    'complete-with-one-missing',
    COORDINATOR,
    'a checkpoint completes before its last answer (5, 8)',
    ["stage: missing === 0 ? 'committing' : 'collecting',", "stage: missing <= 1 ? 'committing' : 'collecting',"],
    ['if (missing === 0) {', 'if (missing === (pending.missing > 1 ? 1 : 0)) {'],
    [
      "assert(next.expected.every((expected, i) => expected === (next.acks[i] !== undefined)), 'K3: committed with every acknowledgement');",
      '',
    ],
  ),
  mutant('no-blocking', ALIGNER, 'a channel whose barrier has come is not held back (8)', [
    "effects.push({ kind: 'block', channel }); // A2",
    ';',
  ]),
  mutant('skip-a-channel', ALIGNER, 'the snapshot is taken when the first of the barriers has come (8)', [
    'if (!alignment.received.has(channel))\n                return false;',
    'if (!alignment.received.has(channel))\n                return alignment.received.size > 0;',
  ]),
  mutant('forget-what-was-prepared', SINK, 'output prepared for an aborted checkpoint is in no later one (8)', [
    'prepared.checkpointId <= checkpointId);',
    'prepared.checkpointId === checkpointId);',
  ]),
  mutant(
    'commit-without-completion',
    SINK,
    'output is committed with its preparation, before its checkpoint has completed (8)',
    [
      'this.prepared.push({ checkpointId, committables });',
      '{ this.prepared.push({ checkpointId, committables }); void this.commit({ checkpointId, committables }); }',
    ],
  ),
  mutant(
    'forget-to-commit-again',
    SINK,
    'what a restored checkpoint held is not committed again: a lost notice loses output (8)',
    ['await writer.open(restored.flatMap(({ committables }) => committables));', 'await writer.open([]);'],
  ),
  mutant(
    'read-from-the-start',
    'src/subtask/operators/source-operator.js',
    'a restored source reads everything again (8)',
    ['if (this.context.restore !== undefined)\n            return state.restored(SPLITS);', ''],
  ),
];
