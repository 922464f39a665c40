import { CloseStack } from '../../src/kernel/lifecycle.ts';
import { EtcdCluster } from '../../test-support/etcd-cluster.ts';
import { ensureInfra } from '../../test-support/ensure-infra.ts';
import { HttpFaultProxy } from '../../test-support/http-fault-proxy.ts';
import { LatencyProxy, type ProxyTap } from '../../test-support/latency-proxy.ts';
import type { Seat } from '../../test-support/local-cluster.ts';
import { LabHost, NetLab } from '../../test-support/net-lab.ts';
import { LOOPBACK, type Place } from '../../test-support/place.ts';
import type { Rgw } from '../../test-support/rgw.ts';

/**
 * What outlives a round: three etcd members, an S3 server, the hosts, and proxies in front of both stores for
 * the rounds that want them. Each etcd member, master and worker is a host of its own where that is possible.
 */
export class World implements AsyncDisposable {
  private readonly hosts = new Map<string, Promise<LabHost>>();
  /** Sees every chunk that a process sends to etcd through a proxy. */
  tap: ProxyTap = () => 'pass';

  private constructor(
    /** Undefined: everything runs on loopback, for the reason given. */
    readonly lab: NetLab | undefined,
    readonly whyLoopback: string | undefined,
    readonly etcd: EtcdCluster,
    readonly s3: Rgw,
    readonly bucket: string,
    readonly etcdProxies: readonly LatencyProxy[],
    readonly s3Proxy: HttpFaultProxy,
    private readonly stack: CloseStack,
  ) {}

  static async open(options: { readonly loopback?: boolean } = {}): Promise<World> {
    const stack = new CloseStack();
    try {
      const { lab, why } = await openLab(options.loopback ?? false);
      if (lab !== undefined) stack.add('net lab', () => lab.close());
      const outside = lab?.outside ?? LOOPBACK;
      const places: readonly Place[] =
        lab === undefined
          ? [LOOPBACK, LOOPBACK, LOOPBACK]
          : [await lab.addHost('etcd-0'), await lab.addHost('etcd-1'), await lab.addHost('etcd-2')];
      const etcd = await EtcdCluster.start({ places });
      stack.add('etcd', () => etcd.close());
      // The SDK announces its own future once per process.
      process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
      const { Rgw } = await import('../../test-support/rgw.ts');
      const s3 = await Rgw.start(outside);
      stack.add('S3', () => s3.close());
      const held: { tap: ProxyTap } = { tap: () => 'pass' };
      const etcdProxies: LatencyProxy[] = [];
      for (const member of etcd.members) {
        const { hostname, port } = new URL(member.endpoint);
        const proxy = await LatencyProxy.start({
          host: outside.address,
          targetHost: hostname,
          targetPort: Number(port),
          tap: (bytes) => held.tap(bytes),
        });
        stack.add('etcd proxy', () => proxy.close());
        etcdProxies.push(proxy);
      }
      const s3Proxy = await HttpFaultProxy.start(s3.access.endpoint, outside.address);
      stack.add('S3 proxy', () => s3Proxy.close());
      const world = new World(lab, why, etcd, s3, await s3.createBucket(), etcdProxies, s3Proxy, stack);
      held.tap = (bytes) => world.tap(bytes);
      return world;
    } catch (error) {
      await stack.close();
      throw error;
    }
  }

  /** Where the n-th master or worker of a round runs. */
  async seat(role: 'jobmanager' | 'taskmanager', index: number): Promise<Seat> {
    const { lab } = this;
    if (lab === undefined) return { place: LOOPBACK };
    const name = `${role}-${index}`;
    const host = this.hosts.get(name) ?? lab.addHost(name);
    this.hosts.set(name, host);
    return { place: await host };
  }

  /** Settings of a cluster of its own in these stores. */
  storesFor(clusterId: string, proxied: readonly ('etcd' | 's3')[]): string[] {
    const { endpoint, region, credentials } = this.s3.access;
    const [{ address }] = [this.lab?.outside ?? LOOPBACK];
    const etcd = proxied.includes('etcd')
      ? this.etcdProxies.map(({ port }) => `http://${address}:${port}`)
      : this.etcd.endpoints;
    return [
      `high-availability.cluster-id=${clusterId}`,
      'high-availability.type=etcd',
      `high-availability.etcd.endpoints=${etcd.join(',')}`,
      `high-availability.storageDir=s3://${this.bucket}/${clusterId}`,
      `s3.endpoint=${proxied.includes('s3') ? this.s3Proxy.endpoint : endpoint}`,
      `s3.region=${region}`,
      `s3.access-key=${credentials.accessKeyId}`,
      `s3.secret-key=${credentials.secretAccessKey}`,
    ];
  }

  /** Overwrites an object of the bucket with garbage; resolves with what puts it back. */
  async spoil(key: string): Promise<() => Promise<void>> {
    const { GetObjectCommand, PutObjectCommand } = await import('@aws-sdk/client-s3');
    const { createS3Client } = await import('../../test-support/rgw.ts');
    const put = async (Body: Uint8Array) => {
      const client = createS3Client(this.s3.access);
      await client.send(new PutObjectCommand({ Bucket: this.bucket, Key: key, Body })).finally(() => client.destroy());
    };
    const client = createS3Client(this.s3.access);
    const answer = await client.send(new GetObjectCommand({ Bucket: this.bucket, Key: key }));
    const bytes = (await answer.Body?.transformToByteArray()) ?? new Uint8Array();
    client.destroy();
    await put(Buffer.from('this was a checkpoint'));
    return () => put(bytes);
  }

  /** Undoes every fault of a round, also of one that broke off. */
  async heal(): Promise<void> {
    this.tap = () => 'pass';
    this.s3Proxy.fault = () => undefined;
    for (const proxy of this.etcdProxies) {
      proxy.mode = 'forward';
      proxy.delayMs = 0;
      proxy.lossRate = 0;
    }
    for (const host of this.hosts.values()) await (await host).heal();
    for (const member of this.etcd.members) {
      if (member.place instanceof LabHost) await member.place.heal();
      if (!member.running) await member.start();
      else if (!member.serving) member.resume();
    }
    await this.etcd.untilHealthy();
    this.s3.process.send('SIGCONT');
    if (!this.s3.process.alive) await this.s3.restart();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stack.close();
  }
}

async function openLab(
  loopback: boolean,
): Promise<{ readonly lab: NetLab | undefined; readonly why: string | undefined }> {
  if (loopback) return { lab: undefined, why: 'asked for' };
  if (process.getuid?.() !== 0) return { lab: undefined, why: 'not root' };
  await ensureInfra(['net']);
  const lab = await NetLab.open();
  return lab instanceof NetLab ? { lab, why: undefined } : { lab: undefined, why: lab.impossible };
}
