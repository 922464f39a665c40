/** One change of one key, as etcd remembers it. */
export interface KeyChange {
  readonly revision: bigint;
  readonly kind: 'put' | 'delete';
  readonly key: string;
  /** Empty for a deletion. */
  readonly value: string;
  readonly lease: string | undefined;
}

interface WatchAnswer {
  readonly result?: {
    readonly header?: { readonly revision?: string };
    readonly created?: boolean;
    readonly canceled?: boolean;
    readonly cancel_reason?: string;
    readonly events?: readonly {
      readonly type?: 'DELETE';
      readonly kv: {
        readonly key: string;
        readonly value?: string;
        readonly mod_revision: string;
        readonly lease?: string;
      };
    }[];
  };
}

const encoded = (text: string) => Buffer.from(text).toString('base64');
const decoded = (text: string | undefined) => Buffer.from(text ?? '', 'base64').toString('utf8');
/** The first key behind all that start with `prefix`. */
const endOf = (prefix: string) => prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);

/**
 * Every change under `prefix` from `fromRevision` up to now, in order: etcd keeps all revisions until it is told to
 * compact. Over the HTTP gateway of a member, so that no client library stands between.
 */
export async function etcdHistory(endpoint: string, prefix: string, fromRevision = 1n): Promise<KeyChange[]> {
  const until = await currentRevision(endpoint);
  const stopped = new AbortController();
  const response = await fetch(`${endpoint}/v3/watch`, {
    method: 'POST',
    body: JSON.stringify({
      create_request: {
        key: encoded(prefix),
        range_end: encoded(endOf(prefix)),
        start_revision: String(fromRevision),
        progress_notify: true,
      },
    }),
    signal: AbortSignal.any([stopped.signal, AbortSignal.timeout(30_000)]),
  });
  const changes: KeyChange[] = [];
  // The last change may be older than `until`: a write of our own marks the end.
  const marker = `${prefix}~history`;
  await put(endpoint, marker, String(until));
  try {
    for await (const { result } of answers(response)) {
      if (result?.canceled === true) throw new Error(`the watch of ${prefix} was cancelled: ${result.cancel_reason}`);
      for (const { type, kv } of result?.events ?? []) {
        const key = decoded(kv.key);
        if (key === marker) {
          if (type === undefined && BigInt(kv.mod_revision) > until) return changes;
          continue;
        }
        const lease = kv.lease === undefined || kv.lease === '0' ? undefined : kv.lease;
        const kind = type === 'DELETE' ? 'delete' : 'put';
        changes.push({ revision: BigInt(kv.mod_revision), kind, key, value: decoded(kv.value), lease });
      }
    }
    throw new Error(`the watch of ${prefix} ended before revision ${until}`);
  } finally {
    stopped.abort();
    await remove(endpoint, marker);
  }
}

/** Each answer is one line of JSON. */
async function* answers(response: Response): AsyncIterable<WatchAnswer> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of response.body ?? []) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line) as WatchAnswer;
  }
}

export async function currentRevision(endpoint: string): Promise<bigint> {
  const { header } = (await call(endpoint, 'range', { key: encoded('~') })) as { header: { revision: string } };
  return BigInt(header.revision);
}

/** What a careless operator can do. */
export async function remove(endpoint: string, key: string): Promise<void> {
  await call(endpoint, 'deleterange', { key: encoded(key) });
}

/** The values of all keys under `prefix`, now. */
export async function etcdKeys(endpoint: string, prefix: string): Promise<Map<string, string>> {
  const request = { key: encoded(prefix), range_end: encoded(endOf(prefix)) };
  const { kvs = [] } = (await call(endpoint, 'range', request)) as { kvs?: { key: string; value?: string }[] };
  return new Map(kvs.map(({ key, value }) => [decoded(key), decoded(value)]));
}

async function put(endpoint: string, key: string, value: string): Promise<void> {
  await call(endpoint, 'put', { key: encoded(key), value: encoded(value) });
}

async function call(endpoint: string, name: string, body: object): Promise<unknown> {
  const response = await fetch(`${endpoint}/v3/kv/${name}`, {
    method: 'POST',
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw new Error(`etcd ${name} answered ${response.status}: ${await response.text()}`);
  return response.json();
}
