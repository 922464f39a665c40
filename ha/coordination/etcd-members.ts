import type { Clock } from '../../src/kernel/clock.ts';
import type { Random } from '../../src/kernel/random.ts';
import type { EtcdMember } from './etcd-member.ts';

/** How long a member that failed is asked last. */
const SUSPECT_MS = 3_000;

/**
 * Which member to ask. One that answers is kept; one that fails is put last for a while, so that a
 * hung member costs one call its time and not every call.
 */
export class EtcdMembers {
  readonly all: readonly EtcdMember[];
  private current: number;
  private readonly suspectUntilMs = new Map<EtcdMember, number>();
  private readonly listeners = new Set<(member: EtcdMember) => void>();

  constructor(
    members: readonly EtcdMember[],
    private readonly clock: Clock,
    random: Random,
  ) {
    this.all = members;
    // Clients spread over the members.
    this.current = random.int(members.length);
  }

  /** All members in the order to ask them: the one in use first, suspects last. */
  inOrder(): readonly EtcdMember[] {
    const nowMs = this.clock.nowMs();
    const ring = [...this.all.slice(this.current), ...this.all.slice(0, this.current)];
    const suspect = (member: EtcdMember) => (this.suspectUntilMs.get(member) ?? 0) > nowMs;
    return [...ring.filter((member) => !suspect(member)), ...ring.filter(suspect)];
  }

  trust(member: EtcdMember): void {
    this.suspectUntilMs.delete(member);
    this.current = this.all.indexOf(member);
  }

  suspect(member: EtcdMember): void {
    this.suspectUntilMs.set(member, this.clock.nowMs() + SUSPECT_MS);
    for (const listener of [...this.listeners]) listener(member);
  }

  /** For streams: a member that no longer answers calls will not send events either. */
  onSuspect(listener: (member: EtcdMember) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    for (const member of this.all) member.close();
  }
}
