import type { Checker } from './checkers/checker.ts';
import { completedCheckpoints } from './checkers/completed-checkpoints.ts';
import { consistentCuts } from './checkers/consistent-cuts.ts';
import { exactlyOnce } from './checkers/exactly-once.ts';
import { jobsKept } from './checkers/jobs-kept.ts';
import { mirrorsConverge } from './checkers/mirrors-converge.ts';
import { operationsKept } from './checkers/operations-kept.ts';
import { referencesKept } from './checkers/references-kept.ts';
import { slotsKeptApart } from './checkers/slots-kept-apart.ts';
import { storeWrites } from './checkers/store-writes.ts';
import { terminalIsTerminal } from './checkers/terminal-is-terminal.ts';
import { unknownIsNoFailure } from './checkers/unknown-is-no-failure.ts';
import { wishesSurvive } from './checkers/wishes-survive.ts';
import { workerObedience } from './checkers/worker-obedience.ts';

/**
 * The invariants of the HA protocol, by their numbers there, and who judges each in the simulator.
 *
 *    1  one token-valid writer, tokens grow        store-writes
 *    2  no stale token is obeyed                   store-writes, worker-obedience
 *    3  no lost job, made once                     jobs-kept
 *    4  terminal is terminal                       terminal-is-terminal
 *    5  completed checkpoints are whole            completed-checkpoints, operations-kept (savepoints)
 *    6  ids rise, recovery uses the newest         completed-checkpoints
 *    7  references are kept, orphans are swept     references-kept (after one sweep, see `simulate`)
 *    8  exactly once                               exactly-once (what is visible), consistent-cuts (what is stored)
 *    9  adoption rolls nothing back                by its consequences: adopted attempts go on in their engines, and 8 and 6
 *                                                  judge what they commit; that what could be adopted was is not judged here
 *   10  slots                                      slots-kept-apart
 *   11  unknown is no failure                      jobs-kept, operations-kept, unknown-is-no-failure; else by its
 *                                                  consequences (3, 7, 8)
 *   12  acknowledged wishes survive                wishes-survive (cancellations), operations-kept (savepoints, stops)
 *   13  mirrors converge, never go back            mirrors-converge; that histories are linearizable is true of the
 *                                                  model by construction: what is judged is the model, against etcd
 *   14  liveness                                   `simulate`: RUNNING or ended within a bound after the last fault
 *   15  authentication, audit                      not here: no request comes over REST. Judged by the tests of rest
 *
 * 0 stands for a process that broke by itself: an invariant of the code, an exception that nobody caught.
 */
export const CHECKERS: readonly Checker[] = [
  storeWrites,
  workerObedience,
  jobsKept,
  terminalIsTerminal,
  completedCheckpoints,
  referencesKept,
  consistentCuts,
  exactlyOnce,
  slotsKeptApart,
  unknownIsNoFailure,
  wishesSurvive,
  mirrorsConverge,
  operationsKept,
];
