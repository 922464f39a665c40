import { MAX_PARALLELISM_LIMIT } from '../contracts/job-graph.ts';
import { InvalidArgumentError } from '../kernel/errors.ts';

/** Checks of what an author passes in: programs are often plain JavaScript, and types end at `unknown`. */

export function checkParallelism(what: string, value: number): number {
  if (!Number.isInteger(value) || value < 1 || value > MAX_PARALLELISM_LIMIT) {
    throw new InvalidArgumentError(
      `${what} must be a whole number from 1 to ${MAX_PARALLELISM_LIMIT}, not ${show(value)}`,
    );
  }
  return value;
}

export function checkWithinMaxParallelism(parallelism: number | undefined, maxParallelism: number | undefined): void {
  if (parallelism === undefined || maxParallelism === undefined || parallelism <= maxParallelism) return;
  throw new InvalidArgumentError(`parallelism ${parallelism} is over the maximum parallelism ${maxParallelism}`, {
    hint: 'Raise the maximum parallelism or lower the parallelism.',
  });
}

export function checkText(what: string, value: string, lengthMax: number): string {
  if (typeof value !== 'string' || value.length === 0 || value.length > lengthMax) {
    throw new InvalidArgumentError(`${what} must be a text of 1 to ${lengthMax} characters, not ${show(value)}`);
  }
  return value;
}

/** A synchronous function: the hot path does not await, so the promises of an async one would become records. */
export function checkFunction<F>(what: string, fn: F): F {
  if (typeof fn !== 'function') throw new InvalidArgumentError(`${what} needs a function, not ${show(fn)}`);
  const kind = fn.constructor.name;
  if (kind === 'AsyncFunction' || kind === 'AsyncGeneratorFunction') {
    throw new InvalidArgumentError(`${what} needs a synchronous function, not an async one`, {
      hint: 'Do input and output in a source or a sink.',
    });
  }
  return fn;
}

/** That `value` has the methods of a connector; says which is missing. */
export function checkMethods<T extends object>(what: string, value: T, methods: readonly (keyof T & string)[]): T {
  if (typeof value !== 'object' || value === null) {
    throw new InvalidArgumentError(`${what} must be an object, not ${show(value)}`);
  }
  for (const method of methods) {
    if (typeof value[method] !== 'function') throw new InvalidArgumentError(`${what} has no method ${method}()`);
  }
  return value;
}

export function checkDuration(what: string, valueMs: number, options: { readonly zero: boolean }): number {
  if (typeof valueMs !== 'number' || !Number.isFinite(valueMs) || valueMs < 0 || (valueMs === 0 && !options.zero)) {
    throw new InvalidArgumentError(
      `${what} must be a number of milliseconds ${options.zero ? 'of 0 or more' : 'over 0'}, not ${show(valueMs)}`,
    );
  }
  return valueMs;
}

export function show(value: unknown): string {
  if (typeof value === 'string') return value.length > 60 ? `a text of ${value.length} characters` : `"${value}"`;
  if (typeof value === 'function') return `the function ${value.name || '(anonymous)'}`;
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? 'an array' : `an object (${value.constructor?.name ?? 'no class'})`;
  }
  return String(value);
}
