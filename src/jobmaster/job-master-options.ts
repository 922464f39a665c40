import type { CheckpointStores } from '../checkpoint/ports.ts';
import type { SlotProvider } from '../contracts/slots.ts';
import type { Clock } from '../kernel/clock.ts';
import type { JobId } from '../kernel/ids.ts';
import type { Logger } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';

/** What a JobMaster needs of the world. */
export interface JobMasterDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly slots: SlotProvider;
  readonly checkpoints: CheckpointStores;
  /** A store or a worker refused our token: this replica no longer leads. Called at most once per JobMaster. */
  readonly onFenced: (reason: string) => void;
  /** For people: not all tasks of the former leader could be adopted. */
  readonly onNotAdopted?: (jobId: JobId, reason: string) => void;
}

export interface JobMasterOptions {
  /** The wish to cancel was already durable when this term began: nothing is deployed any more. */
  readonly cancelRequested: boolean;
  /** The job may be running under an earlier leader: what runs of it is adopted instead of ended. */
  readonly adopt?: boolean;
  /** How long workers are waited for (`jobmaster.adoption-timeout`); less when all known ones have come. */
  readonly adoptionTimeoutMs?: number;
  /** How long the job waits for slots (`slot.request.timeout`). */
  readonly slotRequestTimeoutMs: number;
  /** How long a cancelled task may take to report its end before its slot is taken away. */
  readonly cancelTimeoutMs: number;
  /** Across jobs, who is served first. Default 0. */
  readonly priority?: number;
  /**
   * How long the slots that survived a failure are kept while the missing ones are asked for. After it
   * all are given back and asked for together, so that two jobs never wait for each other's slots.
   */
  readonly slotGraceMs?: number;
  /** How long giving a slot back may take before its worker is treated as cut off. */
  readonly releaseTimeoutMs?: number;
  /**
   * When the job is to be cancelled at the start of a term: how long workers are given to register and
   * to show what they still run of it.
   */
  readonly registrationGraceMs?: number;
}

export const DEFAULT_SLOT_GRACE_MS = 2_000;
export const DEFAULT_RELEASE_TIMEOUT_MS = 20_000;
export const DEFAULT_ADOPTION_TIMEOUT_MS = 2_000;
export const DEFAULT_REGISTRATION_GRACE_MS = 2_000;
