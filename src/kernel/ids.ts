import type { Random } from './random.ts';

/**
 * Branded ids: a JobId never passes for a VertexId although both are strings at run time.
 */
declare const brand: unique symbol;
export type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** 32 lower-case hex digits, as Flink's. */
export type JobId = Branded<string, 'JobId'>;
/** 32 lower-case hex digits: a vertex of the JobGraph (a chain of operators). */
export type VertexId = Branded<string, 'VertexId'>;
/** 32 lower-case hex digits: one operator; state is found again by it. */
export type OperatorId = Branded<string, 'OperatorId'>;
/** One try at running one subtask; never reused. */
export type AttemptId = Branded<string, 'AttemptId'>;
/** A TaskManager process; a restarted process gets another one. */
export type TaskManagerId = Branded<string, 'TaskManagerId'>;
/** A slot handed to a job. */
export type AllocationId = Branded<string, 'AllocationId'>;
/** `<uuid>_<file name>`, as Flink's. */
export type JarId = Branded<string, 'JarId'>;
/** SHA-256 of content, 64 lower-case hex digits. */
export type Digest = Branded<string, 'Digest'>;
/** One scheduling of all of a job's subtasks: `<token>-<n>`; later ones compare greater. */
export type DeploymentId = Branded<string, 'DeploymentId'>;
/** The etcd revision of the transaction that won leadership: strictly increasing, unique. */
export type FencingToken = Branded<bigint, 'FencingToken'>;

export const asJobId = (value: string) => value as JobId;
export const asVertexId = (value: string) => value as VertexId;
export const asOperatorId = (value: string) => value as OperatorId;
export const asAttemptId = (value: string) => value as AttemptId;
export const asTaskManagerId = (value: string) => value as TaskManagerId;
export const asAllocationId = (value: string) => value as AllocationId;
export const asJarId = (value: string) => value as JarId;
export const asDigest = (value: string) => value as Digest;
export const asFencingToken = (value: bigint) => value as FencingToken;

const HEX_32 = /^[0-9a-f]{32}$/;

export function isJobId(value: string): value is JobId {
  return HEX_32.test(value);
}

export function isOperatorId(value: string): value is OperatorId {
  return HEX_32.test(value);
}

export const newJobId = (random: Random) => random.hex(16) as JobId;
export const newAttemptId = (random: Random) => random.hex(16) as AttemptId;
export const newAllocationId = (random: Random) => random.hex(16) as AllocationId;

export function deploymentId(token: FencingToken, n: number): DeploymentId {
  return `${token}-${n}` as DeploymentId;
}

/** Negative when `a` is older than `b`, by token first, then by number. */
export function compareDeployments(a: DeploymentId, b: DeploymentId): number {
  const [tokenA = '0', nA = '0'] = a.split('-');
  const [tokenB = '0', nB = '0'] = b.split('-');
  const byToken = BigInt(tokenA) - BigInt(tokenB);
  return byToken === 0n ? Number(nA) - Number(nB) : byToken < 0n ? -1 : 1;
}
