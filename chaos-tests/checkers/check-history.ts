import type { KeyChange } from '../../test-support/etcd-history.ts';

interface Term {
  readonly token: bigint;
  readonly value: string;
}

/** Written by every master and worker under a lease of its own; nothing is decided by them. */
const NOT_THE_LEADERS = /^(replicas|workers)\//;

/**
 * What etcd's own memory of one cluster must not contradict, whatever was killed or cut off (the numbers are
 * those of the invariants in docs/high-availability.md):
 *
 *   1. Tokens strictly increase, and a leader writes its key once.
 *   2. Whatever else is changed is changed while somebody leads, and a record that names an object of its writer's
 *      carries the token of the leader of that moment.
 *   3. A job is in `jobs/` or in `results/`, from its submission on.
 *   4. Terminal is terminal: a result never changes but to clean, and no job or checkpoint comes after it.
 *   6. Checkpoint ids strictly rise, and a counter never goes back.
 */
export function checkHistory(changes: readonly KeyChange[], root: string): string[] {
  const problems: string[] = [];
  const keys = new Map<string, string>();
  const newestCheckpoint = new Map<string, bigint>();
  let term: Term | undefined;
  let lastToken = 0n;
  for (const transaction of byRevision(changes)) {
    const leading: Term | undefined = term;
    const deleted = new Set(transaction.filter(({ kind }) => kind === 'delete').map(({ key }) => key));
    for (const { revision, kind, key: whole, value } of transaction) {
      const key = whole.slice(root.length);
      const say = (what: string) => problems.push(`etcd revision ${revision}: ${what}`);
      const before = keys.get(key);
      if (kind === 'put') keys.set(key, value);
      else keys.delete(key);

      if (key === 'leader') {
        if (kind === 'delete') {
          term = undefined;
          continue;
        }
        if (revision <= lastToken) say(`token ${revision} after ${lastToken} (1)`);
        if (campaignOf(value) === campaignOf(term?.value)) say('the leader wrote its key again (1)');
        lastToken = revision;
        term = { token: revision, value };
        continue;
      }
      if (NOT_THE_LEADERS.test(key)) continue;
      if (leading === undefined) say(`${key} was changed while nobody led (2)`);
      if (kind === 'put' && before === undefined) {
        const writer = writerOf(key, value);
        if (writer !== undefined && leading !== undefined && writer !== leading.token)
          say(`${key} was written with token ${writer} while ${leading.token} led (2)`);
      }
      const [family = '', jobId = '', rest = ''] = key.split('/');
      if (family === 'jobs') {
        if (kind === 'delete' && !keys.has(`results/${jobId}`) && !putIn(transaction, `${root}results/${jobId}`))
          say(`job ${jobId} was removed without a result (3)`);
        if (kind === 'put' && before !== undefined) say(`job ${jobId} was written twice`);
        if (kind === 'put' && keys.has(`results/${jobId}`)) say(`job ${jobId} came back after its result (4)`);
      }
      if (family === 'results' && kind === 'put') {
        if (keys.has(`jobs/${jobId}`) && !deleted.has(`${root}jobs/${jobId}`))
          say(`the result of ${jobId} was written, and the job was left (4)`);
        if (before !== undefined && !onlyCleaned(before, value)) say(`the result of ${jobId} was changed (4)`);
      }
      if (family === 'checkpoints' && kind === 'put') {
        if (keys.has(`results/${jobId}`)) say(`${key} was completed after the result (4)`);
        const newest = newestCheckpoint.get(jobId) ?? 0n;
        if (before === undefined && BigInt(rest) <= newest) say(`checkpoint ${rest} came after ${newest} (6)`);
        if (BigInt(rest) > newest) newestCheckpoint.set(jobId, BigInt(rest));
      }
      if (family === 'counters' && kind === 'put' && before !== undefined && lastOf(value) <= lastOf(before))
        say(`the counter of ${jobId} went from ${lastOf(before)} to ${lastOf(value)} (6)`);
    }
  }
  return problems;
}

/** Terms, in order: who led from when on. */
export function termsOf(changes: readonly KeyChange[], root: string): { token: bigint; replicaId: string }[] {
  return changes
    .filter(({ key, kind }) => key === `${root}leader` && kind === 'put')
    .map(({ revision, value }) => ({ token: revision, replicaId: String(field(value, 'replicaId')) }));
}

function* byRevision(changes: readonly KeyChange[]): Iterable<readonly KeyChange[]> {
  for (let from = 0; from < changes.length; ) {
    let to = from;
    while (changes[to]?.revision === changes[from]?.revision) to++;
    yield changes.slice(from, to);
    from = to;
  }
}

const putIn = (transaction: readonly KeyChange[], key: string) =>
  transaction.some((one) => one.kind === 'put' && one.key === key);

/** Names of objects carry the token of their writer, and a new record names an object that was written for it. */
function writerOf(key: string, value: string): bigint | undefined {
  const kinds: Readonly<Record<string, string>> = {
    jobs: 'graph',
    results: 'details',
    checkpoints: 'metadata',
    jars: 'bundle',
  };
  const kind = kinds[key.split('/')[0] ?? ''];
  if (kind === undefined) return undefined;
  const [, token] = new RegExp(`/${kind}-(\\d+)-`).exec(value) ?? [];
  return token === undefined ? undefined : BigInt(token);
}

function onlyCleaned(before: string, after: string): boolean {
  const same = (text: string) => text.replace(/"dirty":(true|false)/, '').replace(/"writeId":"[^"]*"/, '');
  return same(before) === same(after) && !(/"dirty":false/.test(before) && /"dirty":true/.test(after));
}

const campaignOf = (value: string | undefined) => (value === undefined ? undefined : field(value, 'campaign'));
const lastOf = (value: string) => Number(field(value, 'last'));

function field(value: string, name: string): unknown {
  return (JSON.parse(value) as Record<string, unknown>)[name];
}
