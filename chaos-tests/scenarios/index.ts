import { allMastersKilled } from './all-masters-killed.ts';
import { checkpointCorrupt } from './checkpoint-corrupt.ts';
import { clocksOff } from './clocks-off.ts';
import { diskFull } from './disk-full.ts';
import { etcdLeaderAndLeader } from './etcd-leader-and-leader.ts';
import { etcdLeaderKilled } from './etcd-leader-killed.ts';
import { etcdQuorumLost } from './etcd-quorum-lost.ts';
import { etcdRestarted } from './etcd-restarted.ts';
import { leaderAfterResult } from './leader-after-result.ts';
import { leaderAndWorker } from './leader-and-worker.ts';
import { leaderBeforeResult } from './leader-before-result.ts';
import { leaderBetweenObjectAndPointer } from './leader-between-object-and-pointer.ts';
import { leaderBetweenPointerAndNotice } from './leader-between-pointer-and-notice.ts';
import { leaderBusy } from './leader-busy.ts';
import { leaderCutOff } from './leader-cut-off.ts';
import { leaderCutOffFromEtcd } from './leader-cut-off-from-etcd.ts';
import { leaderCutOffFromWorker } from './leader-cut-off-from-worker.ts';
import { leaderDeaf } from './leader-deaf.ts';
import { leaderIdle } from './leader-idle.ts';
import { leaderInCancelAfter } from './leader-in-cancel-after.ts';
import { leaderInCancelBefore } from './leader-in-cancel-before.ts';
import { leaderInCheckpoint } from './leader-in-checkpoint.ts';
import { leaderInSubmissionAfter } from './leader-in-submission-after.ts';
import { leaderInSubmissionBefore } from './leader-in-submission-before.ts';
import { leaderMute } from './leader-mute.ts';
import { leaderPausedLonger } from './leader-paused-longer.ts';
import { leaderPausedShorter } from './leader-paused-shorter.ts';
import { leaderSigterm } from './leader-sigterm.ts';
import { leadershipFlapping } from './leadership-flapping.ts';
import { networkSlow } from './network-slow.ts';
import { portTaken } from './port-taken.ts';
import { repeatedKills } from './repeated-kills.ts';
import { s3503 } from './s3-503.ts';
import { s3Killed } from './s3-killed.ts';
import { s3Slow } from './s3-slow.ts';
import { s3Truncating } from './s3-truncating.ts';
import { standbyKilled } from './standby-killed.ts';
import { workerCutOff } from './worker-cut-off.ts';
import { workerKilled } from './worker-killed.ts';
import { workerPaused } from './worker-paused.ts';
import type { Scenario } from './scenario.ts';

/** All of them, in the order of the report. */
export const SCENARIOS: readonly Scenario[] = [
  leaderIdle,
  leaderInCheckpoint,
  leaderBetweenObjectAndPointer,
  leaderBetweenPointerAndNotice,
  leaderBeforeResult,
  leaderAfterResult,
  leaderInSubmissionBefore,
  leaderInCancelBefore,
  leaderInSubmissionAfter,
  leaderInCancelAfter,
  leaderSigterm,
  leaderPausedLonger,
  leaderPausedShorter,
  leaderBusy,
  standbyKilled,
  allMastersKilled,
  repeatedKills,
  workerKilled,
  workerPaused,
  workerCutOff,
  leaderAndWorker,
  leaderCutOff,
  leaderCutOffFromEtcd,
  leaderCutOffFromWorker,
  leaderMute,
  leaderDeaf,
  etcdLeaderKilled,
  etcdLeaderAndLeader,
  etcdQuorumLost,
  etcdRestarted,
  s3Killed,
  s3Slow,
  s3503,
  s3Truncating,
  checkpointCorrupt,
  diskFull,
  clocksOff,
  networkSlow,
  leadershipFlapping,
  portTaken,
];
