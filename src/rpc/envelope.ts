import { errorInfoSchema } from '../contracts/schemas.ts';
import { type ErrorInfo, type MillraceError, fromErrorInfo, isMillraceError, toErrorInfo } from '../kernel/errors.ts';
import { decodePayload, encodePayload } from './payload-codec.ts';

/**
 * What the bytes of an answer are: a value, or the typed error that the handler threw. Errors travel in
 * the body and not in gRPC's trailers, because trailers are limited to a few KiB and to ASCII.
 */
export type Answer = { readonly value: unknown } | { readonly error: ErrorInfo };

const MESSAGE_CHARS_MAX = 8_000;

export function encodeValue(value: unknown, what: string): Buffer {
  return encodePayload([0, value], what);
}

export function encodeError(error: ErrorInfo): Buffer {
  return encodePayload([1, error], 'error');
}

export function decodeAnswer(bytes: Uint8Array, what: string): Answer {
  const decoded = decodePayload(bytes, what);
  if (Array.isArray(decoded) && decoded.length === 2) {
    if (decoded[0] === 0) return { value: decoded[1] };
    const error = errorInfoSchema.safeParse(decoded[1]);
    if (decoded[0] === 1 && error.success) return { error: error.data };
  }
  return {
    error: { code: 'INTERNAL', message: `${what} has an unknown form`, hint: 'Do both sides run the same version?' },
  };
}

/**
 * The part of an error that may leave the process: code, message and hint. Stacks and causes stay in the
 * log of the side that failed; they may hold paths, addresses and values.
 */
export function publicErrorInfo(thrown: unknown): ErrorInfo {
  const { code, message, hint } = toErrorInfo(thrown);
  const shown = isMillraceError(thrown) ? message : `unexpected failure: ${message}`;
  return { code, message: truncate(shown), ...(hint === undefined ? {} : { hint: truncate(hint) }) };
}

/** The same error again on the caller's side; `method` is in the stack's place, which is the callee's business. */
export function rebuildError(info: ErrorInfo): MillraceError {
  return fromErrorInfo({ code: info.code, message: info.message, hint: info.hint });
}

function truncate(text: string): string {
  return text.length <= MESSAGE_CHARS_MAX ? text : `${text.slice(0, MESSAGE_CHARS_MAX)}… (${text.length} characters)`;
}
