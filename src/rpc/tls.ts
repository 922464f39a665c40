import { ChannelCredentials, ServerCredentials } from '@grpc/grpc-js';

/**
 * Mutual TLS: every role has a certificate of the cluster's CA, and talks only to those that have one. PEM.
 *
 * The name in a certificate is not looked at: the CA signs for this cluster only, so membership is all that
 * there is to prove, and workers move between hosts.
 */
export interface RpcTls {
  readonly ca: Uint8Array;
  readonly cert: Uint8Array;
  readonly key: Uint8Array;
}

export function serverCredentials(tls: RpcTls | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const pair = { cert_chain: Buffer.from(tls.cert), private_key: Buffer.from(tls.key) };
  return ServerCredentials.createSsl(Buffer.from(tls.ca), [pair], true);
}

export function channelCredentials(tls: RpcTls | undefined): ChannelCredentials {
  if (tls === undefined) return ChannelCredentials.createInsecure();
  return ChannelCredentials.createSsl(Buffer.from(tls.ca), Buffer.from(tls.key), Buffer.from(tls.cert), {
    checkServerIdentity: () => undefined,
  });
}
