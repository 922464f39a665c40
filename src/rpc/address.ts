import { InvalidArgumentError } from '../kernel/errors.ts';

/** `host:port` of an RPC server. IPv6 hosts are written in brackets: `[::1]:6123`. */
export interface RpcAddress {
  readonly host: string;
  readonly port: number;
}

const HOST = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
const IPV6 = /^[0-9A-Fa-f:.]{2,45}$/;

/** Rejects what is no plain `host:port`, so that a target never selects another scheme or resolver of gRPC. */
export function parseAddress(text: string): RpcAddress {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const [, bracketed, plain, digits] = match ?? [];
  const host = bracketed ?? plain;
  const valid = bracketed === undefined ? HOST.test(plain ?? '') : IPV6.test(bracketed);
  const port = Number(digits);
  if (host === undefined || !valid || !(port >= 1 && port <= 65_535))
    throw new InvalidArgumentError(`"${text.slice(0, 300)}" is not an address`, {
      hint: 'Write host:port, e.g. 127.0.0.1:6123 or [::1]:6123, with a port from 1 to 65535.',
    });
  return { host, port };
}

export function formatAddress({ host, port }: RpcAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
