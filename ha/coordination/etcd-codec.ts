import {
  CompareResult,
  CompareTarget,
  type IKeyValue,
  type IRequestOp,
  type ITxnRequest,
  type ITxnResponse,
} from 'etcd3';
import type { Entry, LeaseId, Op, Revision, Transaction, TxnResult } from './coordination.ts';

/**
 * Between the port's words and etcd's, under a namespace: a prefix that every key in etcd carries
 * and no caller sees. Numbers of 64 bits travel as decimal strings, never as JavaScript numbers.
 */
export class EtcdCodec {
  constructor(readonly namespace: string) {}

  key(key: string): Buffer {
    return Buffer.from(this.namespace + key, 'utf8');
  }

  /** All keys that start with `prefix`. */
  range(prefix: string): { readonly key: Buffer; readonly range_end: Buffer } {
    const key = this.key(prefix);
    return { key, range_end: prefixEnd(key) };
  }

  request(transaction: Transaction): ITxnRequest {
    return {
      compare: transaction.guards.map((guard) => ({
        key: this.key(guard.key),
        target: CompareTarget.Mod,
        result: CompareResult.Equal,
        mod_revision: String(guard.modRevision),
      })),
      success: transaction.then.map((op) => this.operation(op)),
      failure: (transaction.otherwise ?? []).map((op) => this.operation(op)),
    };
  }

  result(transaction: Transaction, response: ITxnResponse): TxnResult {
    const ops = response.succeeded ? transaction.then : (transaction.otherwise ?? []);
    const reads: (Entry | undefined)[] = [];
    for (const [i, op] of ops.entries()) {
      if (op.kind !== 'get') continue;
      const found = response.responses[i]?.response_range.kvs[0];
      reads.push(found === undefined ? undefined : this.entry(found));
    }
    return { succeeded: response.succeeded, revision: BigInt(response.header.revision), reads };
  }

  entry(kv: IKeyValue): Entry {
    return {
      key: this.keyOf(kv),
      value: kv.value.toString('utf8'),
      modRevision: BigInt(kv.mod_revision),
      createRevision: BigInt(kv.create_revision),
      lease: leaseOf(kv),
    };
  }

  keyOf(kv: IKeyValue): string {
    return kv.key.toString('utf8').slice(this.namespace.length);
  }

  private operation(op: Op): IRequestOp {
    switch (op.kind) {
      case 'get':
        return { request_range: { key: this.key(op.key) } };
      case 'put': {
        const put = { key: this.key(op.key), value: Buffer.from(op.value, 'utf8') };
        return { request_put: op.lease === undefined ? put : { ...put, lease: op.lease } };
      }
      case 'delete':
        return { request_delete_range: { key: this.key(op.key) } };
      case 'deletePrefix':
        return { request_delete_range: this.range(op.prefix) };
    }
  }
}

export function revisionOf(response: { readonly header: { readonly revision: string } }): Revision {
  return BigInt(response.header.revision);
}

function leaseOf(kv: IKeyValue): LeaseId | undefined {
  return kv.lease === '0' ? undefined : kv.lease;
}

/** The first key after all that start with `prefix`: its last byte, which is ASCII, plus one. */
function prefixEnd(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end.at(-1) ?? 0) + 1;
  return end;
}
