import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { guardNamespace, guardLink, unguardNetwork } from './guardian.ts';
import type { Place } from './place.ts';

const run = promisify(execFile);

/**
 * Hosts of a cluster as network namespaces on one bridge, so that a cable can be pulled: a host that is cut
 * off gets no reset and no refusal, its packets just go nowhere, as with a machine that has lost its power.
 *
 * The bridge's own address is this process, which reaches every host. Everything is removed by `close`, and by
 * the guardian when this process dies. Needs root, `ip` and `iptables`.
 */
export class NetLab implements AsyncDisposable {
  private readonly hosts = new Map<string, LabHost>();
  private closing: Promise<void> | undefined;

  private constructor(
    private readonly id: string,
    private readonly subnet: string,
  ) {}

  /** Undefined where this process may not make namespaces, with the reason. */
  static async open(): Promise<NetLab | { readonly impossible: string }> {
    if (process.getuid?.() !== 0) return { impossible: 'not root' };
    const lab = new NetLab(
      randomInt(36 ** 4)
        .toString(36)
        .padStart(4, '0'),
      freeSubnet(),
    );
    try {
      guardLink(lab.bridge);
      await ip('link', 'add', lab.bridge, 'type', 'bridge');
      await ip('addr', 'add', `${lab.gateway}/24`, 'dev', lab.bridge);
      await ip('link', 'set', lab.bridge, 'up');
      // One host shows whether namespaces can be had at all.
      await lab.addHost('probe');
      return lab;
    } catch (error) {
      await lab.close();
      const { stderr, message } = error as Error & { stderr?: string };
      return { impossible: (stderr ?? message).trim() };
    }
  }

  /** This process, as the hosts see it. */
  get gateway(): string {
    return `${this.subnet}.1`;
  }

  /** Servers that this process starts outside of all hosts. */
  get outside(): Place {
    return { name: 'outside', address: this.gateway, command: (command, args) => ({ command, args }) };
  }

  async addHost(name: string): Promise<LabHost> {
    const host = new LabHost(name, `mr${this.id}${this.hosts.size}`, `${this.subnet}.${11 + this.hosts.size}`);
    this.hosts.set(name, host);
    await host.create(this.bridge);
    return host;
  }

  close(): Promise<void> {
    this.closing ??= this.remove();
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  private get bridge(): string {
    return `mr${this.id}br`;
  }

  private async remove(): Promise<void> {
    for (const host of this.hosts.values()) await host.remove();
    await ip('link', 'del', this.bridge).catch(ignoreMissing);
    unguardNetwork(this.bridge);
  }
}

/** One namespace. Every fault can be made twice and is undone once, by `heal`. */
export class LabHost implements Place {
  constructor(
    readonly name: string,
    private readonly namespace: string,
    readonly address: string,
  ) {}

  command(command: string, args: readonly string[]) {
    // `ip` becomes the command, so its process is the one that is signalled.
    return { command: 'ip', args: ['netns', 'exec', this.namespace, command, ...args] };
  }

  /** Pulls the cable: both directions, nobody is told. */
  async cut(): Promise<void> {
    await ip('link', 'set', this.cable, 'down');
  }

  /** What is sent to it is lost; what it sends arrives. */
  async dropIn(): Promise<void> {
    await this.iptables('-I', 'INPUT', '-i', 'eth0', '-j', 'DROP');
  }

  /** What it sends is lost. */
  async dropOut(): Promise<void> {
    await this.iptables('-I', 'OUTPUT', '-o', 'eth0', '-j', 'DROP');
  }

  /** Nothing passes between it and these peers; everybody else is reached. */
  async part(peers: readonly Place[]): Promise<void> {
    for (const { address } of peers) {
      await this.iptables('-I', 'INPUT', '-s', address, '-j', 'DROP');
      await this.iptables('-I', 'OUTPUT', '-d', address, '-j', 'DROP');
    }
  }

  /** It hears these peers, and they do not hear it. */
  async partOneWay(peers: readonly Place[]): Promise<void> {
    for (const { address } of peers) await this.iptables('-I', 'OUTPUT', '-d', address, '-j', 'DROP');
  }

  /** Of the packets that it gets and sends this part is lost, at random. */
  async lose(part: number): Promise<void> {
    const random = ['-m', 'statistic', '--mode', 'random', '--probability', String(part), '-j', 'DROP'];
    await this.iptables('-I', 'INPUT', '-i', 'eth0', ...random);
    await this.iptables('-I', 'OUTPUT', '-o', 'eth0', ...random);
  }

  async heal(): Promise<void> {
    await this.iptables('-F', 'INPUT');
    await this.iptables('-F', 'OUTPUT');
    await ip('link', 'set', this.cable, 'up');
  }

  async create(bridge: string): Promise<void> {
    guardNamespace(this.namespace);
    await ip('netns', 'add', this.namespace);
    await ip('link', 'add', this.cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', this.namespace);
    await ip('link', 'set', this.cable, 'master', bridge, 'up');
    await ip('-n', this.namespace, 'link', 'set', 'lo', 'up');
    await ip('-n', this.namespace, 'addr', 'add', `${this.address}/24`, 'dev', 'eth0');
    await ip('-n', this.namespace, 'link', 'set', 'eth0', 'up');
  }

  async remove(): Promise<void> {
    await ip('netns', 'del', this.namespace).catch(ignoreMissing);
    await ip('link', 'del', this.cable).catch(ignoreMissing); // It goes with the namespace, a moment later.
    unguardNetwork(this.namespace);
  }

  private get cable(): string {
    return `${this.namespace}v`;
  }

  private async iptables(...args: readonly string[]): Promise<void> {
    await run('ip', ['netns', 'exec', this.namespace, 'iptables', '-w', ...args]);
  }
}

async function ip(...args: readonly string[]): Promise<void> {
  await run('ip', args);
}

function ignoreMissing(error: unknown): void {
  const { stderr = '' } = error as { stderr?: string };
  if (!/Cannot find|No such|does not exist/i.test(stderr)) throw error;
}

/** Private, and not one that this machine has already. */
function freeSubnet(): string {
  const taken = Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address));
  for (;;) {
    const subnet = `10.${randomInt(64, 250)}.${randomInt(250)}`;
    if (!taken.some((address) => address.startsWith(`${subnet}.`))) return subnet;
  }
}
