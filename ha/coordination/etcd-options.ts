import { MillraceError } from '../../src/kernel/errors.ts';
import type { EtcdCoordinationOptions } from './etcd-coordination.ts';

/** Options that have been checked. */
export interface EtcdConnection {
  readonly endpoints: readonly string[];
  readonly namespace: string;
  readonly deadlineMs: number;
  readonly description: string;
}

/** @throws MillraceError `CONFIGURATION` that lists every problem; it never repeats a password. */
export function parseEtcdConnection(options: EtcdCoordinationOptions): EtcdConnection {
  const problems: string[] = [];
  const hosts: string[] = [];
  const schemes = new Set<string>();
  if (options.endpoints.length === 0) problems.push('no endpoints');
  for (const endpoint of options.endpoints) {
    const problem = problemOfEndpoint(endpoint);
    if (problem !== undefined) {
      problems.push(problem);
      continue;
    }
    const url = new URL(endpoint);
    schemes.add(url.protocol);
    // `host` leaves a scheme's default port out, and gRPC's default is another.
    hosts.push(`${url.hostname}:${url.port === '' ? '2379' : url.port}`);
  }
  if (schemes.size > 1) problems.push('endpoints mix http and https');
  if (options.tls !== undefined && schemes.has('http:')) problems.push('TLS is configured, but endpoints are http');
  if ((options.tls?.cert === undefined) !== (options.tls?.key === undefined))
    problems.push('a client certificate needs its key, and a key its certificate');
  if (options.auth !== undefined && (options.auth.username === '' || options.auth.password === ''))
    problems.push('user name and password must both be set');
  if (!/^\/([A-Za-z0-9._-]+\/)+$/.test(options.namespace))
    problems.push(
      `namespace ${JSON.stringify(options.namespace)} must begin and end with / and have parts of A-Z a-z 0-9 . _ -`,
    );
  const deadlineMs = options.deadlineMs ?? 1_000;
  if (!(deadlineMs >= 50)) problems.push(`deadline of ${deadlineMs} ms: at least 50 are needed`);
  if (problems.length > 0) throw new MillraceError('CONFIGURATION', `etcd: ${problems.join('; ')}`);
  const scheme = schemes.has('https:') ? 'https' : 'http';
  return {
    endpoints: hosts.map((host) => `${scheme}://${host}`),
    namespace: options.namespace,
    deadlineMs,
    description: `etcd:${hosts.join(',')}${options.namespace}`,
  };
}

function problemOfEndpoint(endpoint: string): string | undefined {
  if (!URL.canParse(endpoint)) return `endpoint is not a URL (http://host:2379)`;
  const url = new URL(endpoint);
  const shown = `${url.protocol}//${url.host}`;
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    return `endpoint ${shown} must begin with http:// or https://`;
  if (url.username !== '' || url.password !== '')
    return `endpoint ${shown} must not hold a user or password: set them apart`;
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') return `endpoint ${shown} must have no path`;
  return undefined;
}
