import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { releasePorts, reservePorts } from './free-ports.ts';
import { makeTempFolder, removeTempFolder } from './guardian.ts';
import { LOOPBACK, type Place } from './place.ts';
import { ManagedProcess } from './processes.ts';
import { until } from './until.ts';

const run = promisify(execFile);

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** All that a client needs to reach an S3 server and one user's objects there. */
export interface S3Access {
  /** `http://127.0.0.1:port`; address buckets by path. */
  readonly endpoint: string;
  readonly region: string;
  readonly credentials: S3Credentials;
}

const START_TIMEOUT_MS = 90_000;

/**
 * A real S3 server: Ceph's RADOS Gateway over one monitor and one storage daemon, on free loopback
 * ports, in a temporary folder. Up in one or two seconds; objects live in the storage daemon's memory.
 */
export class Rgw implements AsyncDisposable {
  readonly access: S3Access;
  private gateway: ManagedProcess | undefined;
  private readonly daemons: ManagedProcess[] = [];
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly folder: string,
    private readonly ports: { readonly s3: number; readonly monitor: number },
    private readonly place: Place,
  ) {
    this.access = {
      endpoint: `http://${place.address}:${ports.s3}`,
      region: 'us-east-1',
      credentials: { accessKeyId: 'millrace-test', secretAccessKey: `secret-${randomUUID()}` },
    };
  }

  /** Resolves when `access` works. Only the address of the place counts: the daemons run on this machine. */
  static async start(place: Place = LOOPBACK): Promise<Rgw> {
    const [s3, monitor] = (await reservePorts(2)) as [number, number];
    const rgw = new Rgw(makeTempFolder('rgw'), { s3, monitor }, place);
    try {
      await rgw.create();
      return rgw;
    } catch (error) {
      await rgw.close();
      throw error;
    }
  }

  /** The process that speaks S3; the store behind it lives on when it dies. */
  get process(): ManagedProcess {
    if (this.gateway === undefined) throw new Error('the S3 gateway was never started');
    return this.gateway;
  }

  /** Kills the gateway alone: connections are refused until {@link restart}; objects stay. */
  async kill(): Promise<void> {
    await this.process.kill();
  }

  /** Takes about 0.2 s. The first change of a bucket or user afterwards takes 2 s, other requests do not. */
  async restart(): Promise<void> {
    await this.kill();
    await this.startGateway();
  }

  async pause(): Promise<void> {
    await this.process.pause();
  }

  resume(): void {
    this.process.resume();
  }

  /** Creates a bucket with a name of its own (or the given one) and returns the name. */
  async createBucket(name = `bucket-${randomUUID()}`): Promise<string> {
    const client = createS3Client(this.access);
    try {
      await client.send(new CreateBucketCommand({ Bucket: name }));
      return name;
    } finally {
      client.destroy();
    }
  }

  /** Another user, who may not touch the first one's buckets. */
  async createUser(name: string): Promise<S3Access> {
    const credentials = { accessKeyId: name, secretAccessKey: `secret-${randomUUID()}` };
    await this.addUser(credentials);
    return { ...this.access, credentials };
  }

  close(): Promise<void> {
    this.closing ??= this.closeAll();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private async closeAll(): Promise<void> {
    await this.gateway?.kill();
    for (const daemon of this.daemons.reverse()) await daemon.kill();
    releasePorts(Object.values(this.ports));
    removeTempFolder(this.folder);
  }

  private in(...parts: readonly string[]): string {
    return join(this.folder, ...parts);
  }

  private async create(): Promise<void> {
    for (const name of ['mon', 'osd', 'rgw', 'run']) mkdirSync(this.in(name));
    const fsid = randomUUID();
    writeFileSync(
      this.in('ceph.conf'),
      configuration({ folder: this.folder, fsid, host: this.place.address, ...this.ports }),
    );
    await this.createKeys();
    await this.createMonitor(fsid);
    await this.createStorage();
    await this.startGateway();
    await this.addUser(this.access.credentials);
  }

  private async createKeys(): Promise<void> {
    const keyring = this.in('keyring');
    const all = ['--cap', 'mon', 'allow *', '--cap', 'osd', 'allow *', '--cap', 'mgr', 'allow *'];
    await run('ceph-authtool', ['--create-keyring', keyring, '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *']);
    for (const name of ['client.admin', 'client.rgw', 'osd.0'])
      await run('ceph-authtool', [keyring, '--gen-key', '-n', name, ...all]);
  }

  private async createMonitor(fsid: string): Promise<void> {
    const map = this.in('monmap');
    const address = `[v2:127.0.0.1:${this.ports.monitor}]`;
    await run('monmaptool', ['--create', '--fsid', fsid, '--addv', 'a', address, map]);
    await run('ceph-mon', [...this.conf, '--mkfs', '-i', 'a', '--monmap', map, '--keyring', this.in('keyring')]);
    this.daemons.push(await this.startDaemon('ceph-mon', ['-i', 'a']));
  }

  /** `osd new` is the first thing that needs the monitor, so it is tried until that one answers. */
  private async createStorage(): Promise<void> {
    const uuid = randomUUID();
    const id = await until(
      'the Ceph monitor to answer',
      async () => (await run('ceph', [...this.conf, 'osd', 'new', uuid], { timeout: 10_000 })).stdout.trim(),
      { timeoutMs: START_TIMEOUT_MS, everyMs: 50 },
    );
    await run('ceph-osd', [...this.conf, '-i', id, '--mkfs', '--osd-uuid', uuid]);
    this.daemons.push(await this.startDaemon('ceph-osd', ['-i', id]));
  }

  private async startGateway(): Promise<void> {
    const gateway = await this.startDaemon('radosgw', ['-n', 'client.rgw']);
    this.gateway = gateway;
    const up = await until(
      'the S3 gateway to answer',
      async () => {
        if (!gateway.alive) return 'ended';
        await fetch(this.access.endpoint, { signal: AbortSignal.timeout(2_000) });
        return 'up';
      },
      { timeoutMs: START_TIMEOUT_MS, everyMs: 50 },
    );
    if (up === 'ended') throw new Error(`radosgw ended while starting; ${gateway.lastWords()}`);
  }

  private async addUser({ accessKeyId, secretAccessKey }: S3Credentials): Promise<void> {
    const names = [`--uid=${accessKeyId}`, `--display-name=${accessKeyId}`];
    const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
    await run('radosgw-admin', [...this.conf, '-n', 'client.rgw', 'user', 'create', ...names, ...keys]);
  }

  private get conf(): readonly string[] {
    return ['-c', this.in('ceph.conf')];
  }

  private startDaemon(command: string, args: readonly string[]): Promise<ManagedProcess> {
    return ManagedProcess.start({
      name: command,
      command,
      args: [...this.conf, ...args, '-f'],
      logFile: this.in('run', `${command}.out`),
    });
  }
}

/** A client set up for any S3 server, not only for AWS; the caller destroys it. */
export function createS3Client(access: S3Access): S3Client {
  return new S3Client({
    endpoint: access.endpoint,
    region: access.region,
    credentials: access.credentials,
    forcePathStyle: true,
    // Ceph and others refuse the streaming checksums that the SDK adds by default.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

function configuration(options: {
  readonly folder: string;
  readonly fsid: string;
  readonly host: string;
  readonly s3: number;
  readonly monitor: number;
}): string {
  const { folder, fsid, host, s3, monitor } = options;
  return `[global]
fsid = ${fsid}
mon host = v2:127.0.0.1:${monitor}
mon initial members = a
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${folder}/keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon pg warn min per osd = 0
mon max pg per osd = 2000
run dir = ${folder}/run
admin socket = ${folder}/run/$name.$pid.asok
log file = ${folder}/run/$name.log
pid file =
crash dir = ${folder}/run
# A killed gateway leaves a watch on the control object, and until that expires (30 s by default)
# every change of a bucket or user waits for its answer. Shorter, with pings to match:
objecter tick interval = 1
osd client watch timeout = 3
[mon]
# A lone monitor has nobody to wait for; with the defaults each of the many steps takes a second.
paxos propose interval = 0.02
paxos min wait = 0.01
mon data = ${folder}/mon
[osd]
osd data = ${folder}/osd
osd objectstore = memstore
osd memory target = 939524096
memstore device bytes = 2147483648
osd journal =
osd class load list = *
osd class default list = *
[client.rgw]
rgw data = ${folder}/rgw
rgw frontends = beast endpoint=${host}:${s3} tcp_nodelay=1
rgw enable usage log = false
rgw dns name =
rgw thread pool size = 32
rgw gc max objs = 7
rgw num rados handles = 1
rgw run sync thread = false
rgw num control oids = 1
# A gateway that is killed while it completes an upload leaves a lock, and until that expires (10 min by default) every
# other completion of that upload is refused as "already in progress".
rgw mp lock max time = 5
`;
}
