import { InvalidArgumentError } from '../../src/kernel/errors.ts';
import { MAX_TXN_OPS, MAX_VALUE_BYTES, type Op, type Transaction } from './coordination.ts';

/**
 * Checks that every adapter makes before it sends anything, so that what one store refuses, all
 * refuse, with the same words.
 */

/** LMDB's largest key is 1,978 bytes and etcd has no limit; a prefix of the adapter's own must still fit. */
export const MAX_KEY_BYTES = 512;
/** Of keys and values together. etcd takes 1.5 MiB a request, framing included. */
export const MAX_TXN_BYTES = 1024 * 1024;

const KEY = /^[A-Za-z0-9._/-]+$/;
const PREFIX = /^[A-Za-z0-9._/-]*$/;

export function checkKey(key: string): void {
  if (key.length > MAX_KEY_BYTES)
    throw new InvalidArgumentError(`key of ${key.length} characters: at most ${MAX_KEY_BYTES} are allowed`);
  if (!KEY.test(key))
    throw new InvalidArgumentError(`key ${JSON.stringify(key)}: only A-Z a-z 0-9 . _ / - are allowed, at least one`);
}

export function checkPrefix(prefix: string): void {
  if (prefix.length > MAX_KEY_BYTES)
    throw new InvalidArgumentError(`prefix of ${prefix.length} characters: at most ${MAX_KEY_BYTES} are allowed`);
  if (!PREFIX.test(prefix))
    throw new InvalidArgumentError(`prefix ${JSON.stringify(prefix)}: only A-Z a-z 0-9 . _ / - are allowed`);
}

export function checkTtl(ttlMs: number): void {
  if (!Number.isFinite(ttlMs) || ttlMs <= 0 || ttlMs > 24 * 3_600_000)
    throw new InvalidArgumentError(`lease TTL of ${ttlMs} ms: more than 0 and at most one day is allowed`);
}

/** @throws InvalidArgumentError naming the first thing that is wrong. */
export function checkTransaction(transaction: Transaction): void {
  const { guards, then, otherwise = [] } = transaction;
  checkCount('guards', guards.length);
  checkCount('operations', then.length);
  checkCount('alternative operations', otherwise.length);
  for (const guard of guards) {
    checkKey(guard.key);
    if (guard.modRevision < 0n)
      throw new InvalidArgumentError(`guard on ${guard.key}: revision ${guard.modRevision} is negative`);
  }
  const bytes = checkBranch(then) + checkBranch(otherwise);
  if (bytes > MAX_TXN_BYTES)
    throw new InvalidArgumentError(`transaction of ${bytes} bytes: at most ${MAX_TXN_BYTES} are allowed`, {
      hint: 'Store large values in the object store and keep a pointer here.',
    });
}

function checkCount(what: string, count: number): void {
  if (count > MAX_TXN_OPS)
    throw new InvalidArgumentError(`transaction with ${count} ${what}: at most ${MAX_TXN_OPS} are allowed`, {
      hint: 'Split it; each part has its own guard.',
    });
}

/** Returns the bytes of the branch's keys and values. */
function checkBranch(ops: readonly Op[]): number {
  const puts = new Set<string>();
  let bytes = 0;
  for (const op of ops) {
    if (op.kind === 'deletePrefix') {
      checkPrefix(op.prefix);
      bytes += op.prefix.length;
      continue;
    }
    checkKey(op.key);
    bytes += op.key.length;
    if (op.kind !== 'put') continue;
    const size = Buffer.byteLength(op.value);
    if (size > MAX_VALUE_BYTES)
      throw new InvalidArgumentError(`value of ${op.key} has ${size} bytes: at most ${MAX_VALUE_BYTES} are allowed`, {
        hint: 'Store large values in the object store and keep a pointer here.',
      });
    bytes += size;
    if (puts.has(op.key)) throw new InvalidArgumentError(`${op.key} is put twice in one transaction`);
    puts.add(op.key);
  }
  // etcd's rule ("duplicate key given in txn request"): writing and deleting one key in one
  // transaction has no meaning that does not depend on order.
  for (const op of ops) {
    if (op.kind === 'delete' && puts.has(op.key))
      throw new InvalidArgumentError(`${op.key} is put and deleted in one transaction`);
    if (op.kind !== 'deletePrefix') continue;
    for (const key of puts)
      if (key.startsWith(op.prefix))
        throw new InvalidArgumentError(`${key} is put and deleted (by prefix ${op.prefix}) in one transaction`);
  }
  return bytes;
}
