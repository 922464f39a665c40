import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import {
  type Coordination,
  type Entry,
  MAX_TXN_OPS,
  MAX_VALUE_BYTES,
  type Op,
  type Revision,
  type Watch,
  type WatchEvent,
} from './coordination.ts';

/** What the suite needs of an adapter's test: a fresh store and clients of it. */
export interface ContractSubject {
  /** Another client of the same store, in the same process. Closed by the suite. */
  client(): Promise<Coordination>;
  /** Forgets the history up to now. */
  compact(clients: readonly Coordination[]): Promise<void>;
  /** The shortest lease that the store grants. */
  readonly minTtlMs: number;
  /** How much longer than its TTL a lease may live. */
  readonly expiryLagMs: number;
  close(): Promise<void>;
}

/** What every adapter promises (C1-C6), the same tests for all. */
export function coordinationContract(subjectOf: () => Promise<ContractSubject>): void {
  let subject: ContractSubject;
  let a: Coordination;
  let b: Coordination;
  const clients: Coordination[] = [];

  const client = async () => {
    const made = await subject.client();
    clients.push(made);
    return made;
  };

  beforeEach(async () => {
    subject = await subjectOf();
    a = await client();
    b = await client();
  });

  afterEach(async () => {
    for (const made of clients.splice(0)) await made.close();
    await subject.close();
  });

  test('an empty store lists nothing and reads undefined', async () => {
    expect(await a.get('nothing')).toBeUndefined();
    expect((await a.list('')).entries).toEqual([]);
  });

  test('C1: what one client wrote, every client reads at once', async () => {
    for (let i = 0; i < 20; i++) {
      const { revision } = await a.txn({ guards: [], then: [put('k', `v${i}`)] });
      const entry = await b.get('k');
      expect(entry?.value).toBe(`v${i}`);
      expect(entry?.modRevision).toBe(revision);
      expect((await b.list('k')).revision).toBeGreaterThanOrEqual(revision);
    }
  });

  test('C2: each writing transaction has its own, greater revision, shared by all that it wrote', async () => {
    const first = await a.txn({ guards: [], then: [put('x/1', 'one'), put('x/2', 'two')] });
    const second = await b.txn({ guards: [], then: [put('x/2', 'again')] });
    expect(second.revision).toBeGreaterThan(first.revision);
    const { entries } = await a.list('x/');
    expect(entries.map((entry) => entry.key)).toEqual(['x/1', 'x/2']);
    expect(entries.map((entry) => entry.modRevision)).toEqual([first.revision, second.revision]);
    expect(entries.map((entry) => entry.createRevision)).toEqual([first.revision, first.revision]);
  });

  test('C2: a transaction that writes nothing leaves the revision as it is', async () => {
    const { revision } = await a.txn({ guards: [], then: [put('k', 'v')] });
    const idle = await a.txn({ guards: [], then: [{ kind: 'delete', key: 'absent' }, get('k')] });
    expect(idle.revision).toBe(revision);
    expect((await a.list('')).revision).toBe(revision);
  });

  test('guards hold or fail together, and only the branch that was chosen runs', async () => {
    const { revision } = await a.txn({ guards: [absent('k')], then: [put('k', 'first')] });
    const refused = await b.txn({
      guards: [absent('other'), absent('k')],
      then: [put('other', 'x'), put('k', 'second')],
      otherwise: [get('k'), get('other')],
    });
    expect(refused.succeeded).toBe(false);
    expect(refused.reads.map((entry) => entry?.value)).toEqual(['first', undefined]);
    expect(await a.get('other')).toBeUndefined();
    const accepted = await b.txn({
      guards: [{ key: 'k', modRevision: revision }],
      then: [put('k', 'second'), get('k')],
    });
    expect(accepted.succeeded).toBe(true);
    expect(accepted.reads[0]).toMatchObject({
      value: 'second',
      modRevision: accepted.revision,
      createRevision: revision,
    });
  });

  test('a failed guard without an alternative changes and reads nothing', async () => {
    const result = await a.txn({ guards: [{ key: 'k', modRevision: 99_999n }], then: [put('k', 'v')] });
    expect(result.succeeded).toBe(false);
    expect(result.reads).toEqual([]);
    expect(await a.get('k')).toBeUndefined();
  });

  test('of many that compare and set at the same time exactly one wins each round', async () => {
    await a.txn({ guards: [], then: [put('counter', '0')] });
    const add = async (store: Coordination) => {
      for (let done = 0; done < 10; ) {
        const entry = (await store.get('counter')) as Entry;
        const next = put('counter', String(Number(entry.value) + 1));
        const { succeeded } = await store.txn({
          guards: [{ key: 'counter', modRevision: entry.modRevision }],
          then: [next],
        });
        if (succeeded) done++;
      }
    };
    await Promise.all([add(a), add(b), add(a), add(b)]);
    expect((await a.get('counter'))?.value).toBe('40');
  });

  test('deleting by prefix removes what starts with it and nothing else', async () => {
    await a.txn({ guards: [], then: ['p', 'p/', 'p/1', 'p/2', 'p0', 'q'].map((key) => put(key, 'v')) });
    await a.txn({ guards: [], then: [{ kind: 'deletePrefix', prefix: 'p/' }] });
    expect((await b.list('')).entries.map((entry) => entry.key)).toEqual(['p', 'p0', 'q']);
    expect((await b.list('p')).entries.map((entry) => entry.key)).toEqual(['p', 'p0']);
    await a.txn({ guards: [], then: [{ kind: 'deletePrefix', prefix: '' }] });
    expect((await b.list('')).entries).toEqual([]);
  });

  test('a key that was deleted and made again has a new creation revision', async () => {
    const first = await a.txn({ guards: [], then: [put('k', '1')] });
    await a.txn({ guards: [{ key: 'k', modRevision: first.revision }], then: [{ kind: 'delete', key: 'k' }] });
    const third = await a.txn({ guards: [absent('k')], then: [put('k', '2')] });
    expect(await a.get('k')).toMatchObject({ createRevision: third.revision, modRevision: third.revision });
  });

  test('values keep every character, and empty ones are values', async () => {
    const odd = '{"a":"\\u0000 é 漢字 🚀","b":[1,null]}\n\u0001"';
    await a.txn({ guards: [], then: [put('odd', odd), put('empty', '')] });
    expect((await b.get('odd'))?.value).toBe(odd);
    expect((await b.get('empty'))?.value).toBe('');
  });

  test('a value of the largest size is kept, one byte more is refused', async () => {
    const largest = 'x'.repeat(MAX_VALUE_BYTES);
    await a.txn({ guards: [], then: [put('large', largest)] });
    expect((await b.get('large'))?.value).toBe(largest);
    await expect(a.txn({ guards: [], then: [put('large', `${largest}x`)] })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    // Bytes count, not characters.
    await expect(
      a.txn({ guards: [], then: [put('large', 'é'.repeat(MAX_VALUE_BYTES / 2 + 1))] }),
    ).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  test('a transaction of the most operations is taken, one more is refused and changes nothing', async () => {
    const puts = (count: number) =>
      Array.from({ length: count }, (_, i) => put(`many/${String(i).padStart(3, '0')}`, 'v'));
    await a.txn({ guards: [], then: puts(MAX_TXN_OPS) });
    expect((await a.list('many/')).entries).toHaveLength(MAX_TXN_OPS);
    await expect(a.txn({ guards: [], then: puts(MAX_TXN_OPS + 1) })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    expect((await a.list('many/')).entries).toHaveLength(MAX_TXN_OPS);
    const guards = puts(MAX_TXN_OPS + 1).map(({ key }) => absent(key));
    await expect(a.txn({ guards, then: [] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  test.each<[string, readonly Op[]]>([
    ['the same key twice', [put('k', '1'), put('k', '2')]],
    ['a key that it also deletes', [put('k', '1'), { kind: 'delete', key: 'k' }]],
    ['a key under a prefix that it also deletes', [put('p/k', '1'), { kind: 'deletePrefix', prefix: 'p/' }]],
    ['a key with a space', [put('a b', '1')]],
    ['an empty key', [put('', '1')]],
    ['a key that is too long', [put('k'.repeat(513), '1')]],
    ['more than fits one request', Array.from({ length: 17 }, (_, i) => put(`k${i}`, 'x'.repeat(MAX_VALUE_BYTES)))],
  ])('a transaction that puts %s is refused before it is sent', async (_what, then) => {
    await expect(a.txn({ guards: [], then })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect((await a.list('')).entries).toEqual([]);
  });

  test('a listing of large values, or of very many, is whole, in order and of one revision', async () => {
    const value = 'x'.repeat(60_000);
    for (let i = 0; i < 10; i++)
      await a.txn({ guards: [], then: Array.from({ length: 10 }, (_, j) => put(`big/${i}${j}`, value)) });
    const { entries, revision } = await b.list('big/');
    for (let i = 0; i < 10; i++)
      await a.txn({ guards: [], then: Array.from({ length: 120 }, (_, j) => put(`many/${i}-${j}`, String(j))) });
    const many = await b.list('many/');
    expect(many.entries).toHaveLength(1_200);
    expect(new Set(many.entries.map((entry) => entry.key)).size).toBe(1_200);
    expect(many.entries.map((entry) => entry.key)).toEqual(many.entries.map((entry) => entry.key).sort());
    expect(entries).toHaveLength(100);
    expect(entries.at(-1)?.modRevision).toBe(revision);
    expect(entries.every((entry) => entry.value === value)).toBe(true);
  });

  test('C3: keys bound to a lease go when it is revoked, in a revision that is watched', async () => {
    const lease = await a.grantLease(60_000);
    expect(lease.grantedTtlMs).toBeGreaterThanOrEqual(60_000);
    const { revision } = await a.txn({
      guards: [],
      then: [put('l/1', 'v', lease.id), put('l/2', 'v', lease.id), put('free', 'v')],
    });
    expect((await b.get('l/1'))?.lease).toBe(lease.id);
    expect((await b.get('free'))?.lease).toBeUndefined();
    const seen = watching(b, 'l/', revision);
    await a.revokeLease(lease.id);
    expect((await b.list('')).entries.map((entry) => entry.key)).toEqual(['free']);
    await until('both deletions to be watched', () => seen.length === 2);
    const [one, two] = seen as { kind: string; revision: Revision }[];
    expect([one?.kind, two?.kind]).toEqual(['delete', 'delete']);
    expect(one?.revision).toBe(two?.revision);
    expect(one?.revision).toBeGreaterThan(revision);
    await a.revokeLease(lease.id);
    await expect(a.keepAlive(lease.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('C3: a lease lives while it is renewed, then expires and takes its keys along', async () => {
    const lease = await a.grantLease(subject.minTtlMs);
    const { revision } = await a.txn({ guards: [], then: [put('l', 'v', lease.id)] });
    const seen = watching(b, 'l', revision);
    let sentMs = performance.now();
    for (let i = 0; i < 6; i++) {
      await pause(lease.grantedTtlMs / 4);
      sentMs = performance.now();
      expect((await a.keepAlive(lease.id)).ttlMs).toBe(lease.grantedTtlMs);
    }
    expect((await b.get('l'))?.value).toBe('v');
    await until('the key to go', () => seen.length > 0, {
      timeoutMs: lease.grantedTtlMs + subject.expiryLagMs + 5_000,
    });
    expect(seen[0]).toMatchObject({ kind: 'delete', key: 'l' });
    expect(performance.now() - sentMs).toBeGreaterThanOrEqual(lease.grantedTtlMs);
    await expect(a.keepAlive(lease.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('C3: an expired lease counts for nobody: not for readers, not for guards, not for new keys', async () => {
    const lease = await a.grantLease(subject.minTtlMs);
    const { revision } = await a.txn({ guards: [], then: [put('l', 'v', lease.id)] });
    await until('the key to go', async () => (await b.get('l')) === undefined, {
      timeoutMs: lease.grantedTtlMs + subject.expiryLagMs + 5_000,
    });
    const taken = await b.txn({ guards: [absent('l')], then: [put('l', 'mine')] });
    expect(taken.succeeded).toBe(true);
    expect(taken.revision).toBe(revision + 2n);
    await expect(a.txn({ guards: [], then: [put('other', 'v', lease.id)] })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(await a.get('other')).toBeUndefined();
  });

  test('C3: a key that was put again without the lease, or with another, outlives it', async () => {
    const first = await a.grantLease(60_000);
    const second = await a.grantLease(60_000);
    await a.txn({ guards: [], then: [put('k', '1', first.id), put('moved', '1', first.id)] });
    await a.txn({ guards: [], then: [put('k', '2'), put('moved', '2', second.id)] });
    await a.revokeLease(first.id);
    expect((await b.list('')).entries.map((entry) => entry.key)).toEqual(['k', 'moved']);
    await a.revokeLease(second.id);
    expect((await b.list('')).entries.map((entry) => entry.key)).toEqual(['k']);
  });

  test('renewing or revoking a lease that never was says NOT_FOUND, or nothing', async () => {
    await expect(a.keepAlive('123456789')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await a.revokeLease('123456789');
  });

  test('C4: a watch delivers every change of its prefix once, in order, from the given revision', async () => {
    await a.txn({ guards: [], then: [put('w/0', 'before')] });
    const { revision } = await a.list('w/');
    await a.txn({ guards: [], then: [put('w/early', 'v')] });
    const seen = watching(b, 'w/', revision);
    const expected = ['put w/early'];
    for (let i = 0; i < 30; i++) {
      await a.txn({ guards: [], then: [put(`w/${i % 3}`, String(i)), put(`elsewhere/${i}`, 'v')] });
      expected.push(`put w/${i % 3}`);
    }
    await a.txn({ guards: [], then: [{ kind: 'deletePrefix', prefix: 'w/' }] });
    await until('all changes', () => seen.length >= expected.length + 4);
    expect(seen.slice(0, expected.length).map(brief)).toEqual(expected);
    expect(seen.slice(expected.length).map(brief).sort()).toEqual([
      'delete w/0',
      'delete w/1',
      'delete w/2',
      'delete w/early',
    ]);
    expect(ordered(seen)).toBe(true);
  });

  test('C4: watchers of one client with different starts each get what is theirs', async () => {
    const early = await a.txn({ guards: [], then: [put('w', '1')] });
    await a.txn({ guards: [], then: [put('w', '2')] });
    const late = await a.txn({ guards: [], then: [put('w', '3')] });
    const fromStart = watching(b, 'w', early.revision - 1n);
    const fromLate = watching(b, '', late.revision);
    await a.txn({ guards: [], then: [put('w', '4')] });
    await until('the last change', () => fromStart.length >= 4 && fromLate.length >= 1);
    expect(values(fromStart)).toEqual(['1', '2', '3', '4']);
    expect(values(fromLate)).toEqual(['4']);
  });

  test('C4: a watch that is closed hears nothing more, also when its listener closes it', async () => {
    const { revision } = await a.list('');
    const seen: WatchEvent[] = [];
    const watch: Watch = b.watch('w/', revision, (event) => {
      seen.push(event);
      void watch.close();
    });
    const others = watching(b, 'w/', revision);
    await a.txn({ guards: [], then: [put('w/1', 'v'), put('w/2', 'v')] });
    await a.txn({ guards: [], then: [put('w/3', 'v')] });
    await until('the others to hear all', () => others.length === 3);
    expect(seen).toHaveLength(1);
    await watch.close();
  });

  test('C4: a watch from a revision that was compacted away is reset with a full listing, then goes on', async () => {
    const { revision } = await a.txn({ guards: [], then: [put('w/old', '1')] });
    await a.txn({ guards: [], then: [put('w/old', '2'), put('w/kept', 'v')] });
    await a.txn({ guards: [], then: [{ kind: 'delete', key: 'w/old' }] });
    await subject.compact(clients);
    const seen = watching(b, 'w/', revision);
    await until('the reset', () => seen.length > 0);
    expect(seen).toHaveLength(1);
    const reset = seen[0] as WatchEvent & { kind: 'reset' };
    expect(reset.kind).toBe('reset');
    expect(reset.listing.entries.map((entry) => entry.key)).toEqual(['w/kept']);
    const next = await a.txn({ guards: [], then: [put('w/new', 'v')] });
    await until('the next change', () => seen.length > 1);
    expect(seen[1]).toMatchObject({ kind: 'put', revision: next.revision });
  });

  test('C4: a watch from a revision that the store never had (it was restored or made anew) is reset', async () => {
    const { revision } = await a.txn({ guards: [], then: [put('w', 'v')] });
    const seen = watching(b, 'w', revision + 1_000n);
    await until('the reset', () => seen.length > 0);
    expect(seen[0]).toMatchObject({ kind: 'reset', listing: { entries: [{ key: 'w', value: 'v' }], revision } });
    await a.txn({ guards: [], then: [put('w', 'next')] });
    await until('the next change', () => seen.length > 1);
    expect(values(seen)).toEqual(['next']);
  });

  test('C4: a watch that has kept up is not disturbed by compaction', async () => {
    const { revision } = await a.list('');
    const seen = watching(b, 'w', revision);
    await a.txn({ guards: [], then: [put('w', '1')] });
    await until('the first change', () => seen.length === 1);
    await subject.compact(clients);
    await a.txn({ guards: [], then: [put('w', '2')] });
    await until('the second change', () => seen.length >= 2 && values(seen).includes('2'));
    expect(seen.filter((event) => event.kind === 'disconnected')).toEqual([]);
  });

  test('a client that is closed refuses calls, and closing again is harmless', async () => {
    await a.close();
    await a.close();
    await expect(a.get('k')).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(a.txn({ guards: [], then: [put('k', 'v')] })).rejects.toMatchObject({ code: 'CLOSED' });
    expect(() => a.watch('', 0n, () => undefined)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    expect(await b.get('k')).toBeUndefined();
  });
}

export function put(key: string, value: string, lease?: string): Op & { kind: 'put' } {
  return lease === undefined ? { kind: 'put', key, value } : { kind: 'put', key, value, lease };
}

export function get(key: string): Op {
  return { kind: 'get', key };
}

export function absent(key: string) {
  return { key, modRevision: 0n };
}

/** Watches until the client is closed; the events gather in the array. */
export function watching(client: Coordination, prefix: string, afterRevision: Revision): WatchEvent[] {
  const seen: WatchEvent[] = [];
  client.watch(prefix, afterRevision, (event) => seen.push(event));
  return seen;
}

export function brief(event: WatchEvent): string {
  switch (event.kind) {
    case 'put':
      return `put ${event.entry.key}`;
    case 'delete':
      return `delete ${event.key}`;
    case 'reset':
    case 'disconnected':
      return event.kind;
  }
}

export function values(events: readonly WatchEvent[]): string[] {
  return events.flatMap((event) => (event.kind === 'put' ? [event.entry.value] : []));
}

/** Revisions never go back, and each put carries its own. */
export function ordered(events: readonly WatchEvent[]): boolean {
  let last = 0n;
  for (const event of events) {
    if (event.kind !== 'put' && event.kind !== 'delete') continue;
    if (event.revision < last) return false;
    if (event.kind === 'put' && event.entry.modRevision !== event.revision) return false;
    last = event.revision;
  }
  return true;
}

/** Time is what these tests are about: a lease is renewed at a pace, as its holder does. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
