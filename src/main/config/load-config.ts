import { existsSync, readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { asError, MillraceError } from '../../kernel/errors.ts';
import { type Configuration, OPTIONS, type Option } from './options.ts';

export interface ConfigSources {
  /** A YAML file, flat keys or nested; undefined: none. */
  readonly file: string | undefined;
  /** `key=value`, as given with `-D`. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

export const ENV_PREFIX = 'MILLRACE_CONF_';

/**
 * Reads the configuration once: argument, then environment, then file, then default. Throws one
 * `CONFIGURATION` error that lists every problem: unknown keys, wrong values, contradictions.
 */
export function loadConfiguration(sources: ConfigSources): Configuration {
  const problems: string[] = [];
  const texts = new Map<string, { text: string; origin: string }>();
  readFile(sources.file, texts, problems);
  readEnvironment(sources.env, texts, problems);
  readArguments(sources.args, texts, problems);

  const values: Record<string, unknown> = {};
  const known = new Map(Object.entries(OPTIONS).map(([name, option]) => [option.key as string, name]));
  for (const [key, { origin }] of texts) {
    if (!known.has(key)) problems.push(`unknown key "${key}" (${origin})${suggestion(key, known.keys())}`);
  }
  for (const [name, option] of Object.entries(OPTIONS) as [string, Option<unknown>][]) {
    const given = texts.get(option.key);
    const text = given?.text ?? option.defaultText;
    if (text === undefined) continue;
    try {
      values[name] = option.parse(text);
    } catch (error) {
      problems.push(
        `${option.key}: ${option.secret ? 'the value is not valid' : asError(error).message} (${given?.origin ?? 'default'})`,
      );
    }
  }
  // Relations are checked on what parsed, so that one wrong value does not hide the others.
  problems.push(...contradictions(values as Partial<Configuration>));
  if (problems.length > 0) {
    throw new MillraceError(
      'CONFIGURATION',
      `the configuration has ${problems.length === 1 ? 'a problem' : `${problems.length} problems`}:\n${problems.map((p) => `  - ${p}`).join('\n')}`,
      {
        hint: 'docs/configuration.md lists every key.',
      },
    );
  }
  return Object.freeze(values) as Configuration;
}

type Texts = Map<string, { text: string; origin: string }>;

function readFile(file: string | undefined, texts: Texts, problems: string[]): void {
  if (file === undefined) return;
  if (!existsSync(file)) {
    problems.push(`the configuration file ${file} does not exist`);
    return;
  }
  try {
    flatten('', parse(readFileSync(file, 'utf8')) ?? {}, file, texts, problems);
  } catch (error) {
    problems.push(`${file} is not valid YAML: ${asError(error).message}`);
  }
}

function flatten(prefix: string, value: unknown, file: string, texts: Texts, problems: string[]): void {
  if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
    for (const [key, inner] of Object.entries(value))
      flatten(prefix === '' ? key : `${prefix}.${key}`, inner, file, texts, problems);
    return;
  }
  if (value === null || value === undefined) return;
  const text = Array.isArray(value) ? value.join(',') : String(value);
  if (texts.has(prefix)) problems.push(`${prefix} is given twice in ${file}`);
  texts.set(prefix, { text, origin: file });
}

function readEnvironment(env: ConfigSources['env'], texts: Texts, problems: string[]): void {
  const byName = new Map(Object.values(OPTIONS).map((option) => [environmentName(option.key), option.key]));
  for (const [name, text] of Object.entries(env)) {
    if (!name.startsWith(ENV_PREFIX) || text === undefined) continue;
    const key = byName.get(name);
    if (key === undefined) problems.push(`the environment variable ${name} names no key`);
    else texts.set(key, { text, origin: `environment variable ${name}` });
  }
}

/** `rest.port` is overridden by `MILLRACE_CONF_REST_PORT`. */
export function environmentName(key: string): string {
  return ENV_PREFIX + key.replace(/[.-]/g, '_').toUpperCase();
}

/** Variables of the environment that hold secrets. */
export function secretEnvironmentNames(): readonly string[] {
  return (Object.values(OPTIONS) as Option<unknown>[])
    .filter(({ secret }) => secret)
    .map(({ key }) => environmentName(key));
}

function readArguments(args: readonly string[], texts: Texts, problems: string[]): void {
  for (const argument of args) {
    const at = argument.indexOf('=');
    if (at <= 0) problems.push(`-D ${argument} is not of the form key=value`);
    else texts.set(argument.slice(0, at).trim(), { text: argument.slice(at + 1), origin: 'argument -D' });
  }
}

function contradictions(c: Partial<Configuration>): string[] {
  const out: string[] = [];
  const less = (a: keyof Configuration, b: keyof Configuration, why: string) => {
    const [x, y] = [c[a], c[b]];
    if (typeof x === 'number' && typeof y === 'number' && x >= y)
      out.push(`${OPTIONS[a].key} (${x} ms) must be less than ${OPTIONS[b].key} (${y} ms): ${why}`);
  };
  if (c.haType === 'etcd') {
    if (c.etcdEndpoints === undefined)
      out.push('high-availability.type is etcd but high-availability.etcd.endpoints is missing');
    if (c.storageDir === undefined)
      out.push('high-availability.type is etcd but high-availability.storageDir is missing');
  } else if (c.haType === 'embedded' && c.etcdEndpoints !== undefined) {
    out.push('high-availability.etcd.endpoints is given but high-availability.type is embedded');
  }
  if (c.storageDir !== undefined && !/^(s3:\/\/[^/]+|file:)/.test(c.storageDir))
    out.push(`high-availability.storageDir: "${c.storageDir}" begins neither with s3://bucket nor with file:`);
  if ((c.s3AccessKey === undefined) !== (c.s3SecretKey === undefined))
    out.push('s3.access-key and s3.secret-key go together: one is missing');
  if ((c.etcdUsername === undefined) !== (c.etcdPassword === undefined))
    out.push('high-availability.etcd.username and high-availability.etcd.password go together: one is missing');
  if ((c.etcdCertFile === undefined) !== (c.etcdKeyFile === undefined))
    out.push(
      'high-availability.etcd.tls.cert-file and high-availability.etcd.tls.key-file go together: one is missing',
    );
  if (c.internalTls === true) {
    for (const name of ['internalCertFile', 'internalKeyFile', 'internalCaFile'] as const) {
      if (c[name] === undefined) out.push(`security.ssl.internal.enabled is true but ${OPTIONS[name].key} is missing`);
    }
  }
  if (c.leaseTtlMs !== undefined && c.leaseTtlMs < 1_000)
    out.push(`high-availability.lease-ttl (${c.leaseTtlMs} ms) must be at least 1 s: etcd counts leases in seconds`);
  // Renewal is every third of the lease; the margin must leave room for two tries.
  if (c.leaseTtlMs !== undefined && c.leaseMarginMs !== undefined && c.leaseMarginMs > c.leaseTtlMs / 3)
    out.push(
      `high-availability.lease-margin (${c.leaseMarginMs} ms) must be at most a third of high-availability.lease-ttl (${c.leaseTtlMs} ms)`,
    );
  less('heartbeatIntervalMs', 'heartbeatTimeoutMs', 'one lost heartbeat would end a connection');
  less('exponentialInitialMs', 'exponentialMaxMs', 'waits grow from one to the other');
  return out;
}

function suggestion(key: string, known: Iterable<string>): string {
  let best: string | undefined;
  let bestDistance = 4;
  for (const candidate of known) {
    const distance = editDistance(key, candidate, bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best === undefined ? '' : `; did you mean "${best}"?`;
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? limit;
}

/** For logs, REST and the dashboard: every value as text, secrets hidden. */
export function describeConfiguration(
  configuration: Configuration,
): readonly { readonly key: string; readonly value: string }[] {
  return (Object.entries(OPTIONS) as [keyof Configuration, Option<unknown>][])
    .filter(([name]) => configuration[name] !== undefined)
    .map(([name, option]) => ({ key: option.key, value: option.secret ? '******' : String(configuration[name]) }));
}
