import type { z } from 'zod';
import { InvalidArgumentError } from '../kernel/errors.ts';
import { isJobId, type JobId } from '../kernel/ids.ts';

/** Parses input with a schema, or rejects with one message that names every wrong field. */
export function parseInput<T>(what: string, schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    const path = issue.path.join('.');
    return path === '' ? issue.message : `${path}: ${issue.message}`;
  });
  throw new InvalidArgumentError(`${what} is not valid: ${problems.join('; ')}`);
}

export function jobIdOf(params: unknown): JobId {
  const { jobid } = params as { jobid: string };
  if (!isJobId(jobid)) throw new InvalidArgumentError(`"${jobid}" is not a job id: 32 lower-case hex digits are.`);
  return jobid;
}
