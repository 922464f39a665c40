import type { z } from 'zod';
import { InvalidArgumentError, MillraceError } from '../kernel/errors.ts';

const ISSUES_SHOWN = 5;

/** Checks a request; the error names every wrong path (the first few), e.g. `tasks[0].attemptId: …`. */
export function validateRequest<T>(schema: z.ZodType<T>, value: unknown, method: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new InvalidArgumentError(`request of ${method} is not valid: ${describeIssues(result.error)}`);
}

/** Checks a response. A wrong one is the callee's fault (or another version), not the caller's. */
export function validateResponse<T>(schema: z.ZodType<T>, value: unknown, method: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new MillraceError('INTERNAL', `response of ${method} is not valid: ${describeIssues(result.error)}`, {
    hint: 'Do both sides run the same version?',
  });
}

function describeIssues(error: z.ZodError): string {
  const shown = error.issues.slice(0, ISSUES_SHOWN).map((issue) => `${pathOf(issue.path)}: ${issue.message}`);
  const more = error.issues.length - shown.length;
  return shown.join('; ') + (more > 0 ? `; and ${more} more` : '');
}

function pathOf(path: readonly PropertyKey[]): string {
  if (path.length === 0) return '(whole message)';
  return path
    .map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? String(part) : `.${String(part)}`))
    .join('');
}
