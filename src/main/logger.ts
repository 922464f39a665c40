import { pino } from 'pino';
import type { Logger } from '../kernel/log.ts';
import type { Configuration } from './config/options.ts';

/** The process's log: one JSON line per event on standard error, so that standard output stays the program's. */
export function createLogger(level: Configuration['logLevel'], bindings: Record<string, unknown>): Logger {
  // Synchronous: a killed process must have written what it did.
  return pino({ level, base: { pid: process.pid, ...bindings } }, pino.destination({ dest: 2, sync: true }));
}
