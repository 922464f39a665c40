/** Parsers of configuration values. Each returns the value or throws an Error whose message completes "<key>: …". */

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  milli: 1,
  millis: 1,
  s: 1_000,
  sec: 1_000,
  second: 1_000,
  seconds: 1_000,
  m: 60_000,
  min: 60_000,
  minute: 60_000,
  minutes: 60_000,
  h: 3_600_000,
  hour: 3_600_000,
  hours: 3_600_000,
  d: 86_400_000,
  day: 86_400_000,
  days: 86_400_000,
};

const SIZE_UNITS: Readonly<Record<string, number>> = {
  b: 1,
  bytes: 1,
  k: 1024,
  kb: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1024 ** 3,
  gib: 1024 ** 3,
};

/** `500 ms`, `2s`, `10 min`, or a bare number of milliseconds. Result in milliseconds. */
export function parseDuration(text: string): number {
  return withUnit(text, DURATION_UNITS, 'a duration such as "500 ms", "2 s" or "10 min"');
}

/** A duration, or -1 for never. */
export function parseDurationOrNever(text: string): number {
  return text.trim() === '-1' ? -1 : parseDuration(text);
}

/** `64 kb`, `100 MiB`, or a bare number of bytes; units are binary, as Flink's. Result in bytes. */
export function parseSize(text: string): number {
  return Math.round(withUnit(text, SIZE_UNITS, 'a size such as "64 kb" or "100 MiB"'));
}

function withUnit(text: string, units: Readonly<Record<string, number>>, expected: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match?.[2] === '' ? 1 : units[match?.[2]?.toLowerCase() ?? ''];
  if (match === null || unit === undefined) throw new Error(`"${text}" is not ${expected}`);
  return Number(match[1]) * unit;
}

export function parseInteger(text: string, min: number, max: number): number {
  const value = Number(text.trim());
  if (text.trim() === '' || !Number.isInteger(value)) throw new Error(`"${text}" is not a whole number`);
  if (value < min || value > max) throw new Error(`${value} is outside ${min} to ${max}`);
  return value;
}

export function parseNumber(text: string, min: number, max: number): number {
  const value = Number(text.trim());
  if (text.trim() === '' || !Number.isFinite(value)) throw new Error(`"${text}" is not a number`);
  if (value < min || value > max) throw new Error(`${value} is outside ${min} to ${max}`);
  return value;
}

export function parseBoolean(text: string): boolean {
  const value = text.trim().toLowerCase();
  if (value === 'true') return true;
  if (value === 'false') return false;
  throw new Error(`"${text}" is neither true nor false`);
}
