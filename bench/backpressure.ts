import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { makeTempFolder, removeTempFolder } from '../test-support/guardian.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import type { Benchmark } from './lib/benchmark.ts';

const MIB = 1024 * 1024;
/** What a worker may take, whatever its consumers do: two threads of V8 with their heaps, and the queues. */
const PEAK_MB_MAX = 400;
/** What a standstill may add: nothing, but the collector's habits have to fit in. */
const GROWTH_MB_MAX = 48;
const FLOW_MS = 6_000;
const STALL_MS = 15_000;
const FROZEN_MS = 10_000;
const SAMPLE_MS = 100;

/**
 * A source that could fill any memory, in two workers of two slots, against sinks that stand still, and then
 * against a worker that is frozen: real processes, looked at from outside.
 */
export const backpressureBench: Benchmark = {
  name: 'backpressure',
  description: 'memory of workers whose sinks stand still, and of one whose consumers are in a frozen process',
  async run(_options, say) {
    const dir = makeTempFolder('backpressure');
    const stallFile = join(dir, 'stall');
    await using cluster = await LocalCluster.start({
      dir,
      masters: 1,
      workers: 2,
      slotsPerWorker: 2,
      config: ['heartbeat.timeout=120 s', 'parallelism.default=4', 'metrics.latency.interval=200 ms'],
    });
    const [one, other] = cluster.workers.map(({ process }) => process.pid) as [number, number];
    await until('two workers', async () => (await cluster.get<Overview>('/overview'))['slots-total'] === 4, {
      timeoutMs: 60_000,
    });
    const jobId = await submit(cluster, stallFile);
    const records = async () => {
      const { vertices } = await cluster.get<JobDetails>(`/jobs/${jobId}`);
      return vertices.reduce((sum, { metrics }) => sum + metrics['write-records'], 0);
    };
    await until('records to flow', async () => (await records()) > 0, { timeoutMs: 60_000 });
    await wait(FLOW_MS);
    const flowing = await records();
    say(`flow: ${Math.round(flowing / 1e3)} k records, ${megabytes(one)} and ${megabytes(other)} MB`);

    say(`median age of latency markers at the sinks: ${await latencies(cluster, jobId)} ms`);

    writeFileSync(stallFile, '');
    const stalled = await watch([one, other], STALL_MS);
    const during = await records();
    await wait(SAMPLE_MS * 20);
    const emitted = (await records()) - during;
    say(`sinks stand still: ${stalled.text}; ${emitted} records left sources in the last seconds of it`);
    rmSync(stallFile);
    await until('records to flow again', async () => (await records()) > during + 10_000, { timeoutMs: 60_000 });

    // A dead consumer as its peer sees it: the connection stays, and nothing is read from it.
    process.kill(other, 'SIGSTOP');
    const frozen = await watch([one], FROZEN_MS).finally(() => process.kill(other, 'SIGCONT'));
    say(`the other worker is frozen: ${frozen.text}`);
    const after = await records();
    await until('records to flow once more', async () => (await records()) > after + 10_000, { timeoutMs: 60_000 });
    const peak = Math.max(peakMegabytes(one), peakMegabytes(other));
    await cluster.kill();
    removeTempFolder(dir);
    return [
      { name: 'peak memory of a worker', value: peak, unit: 'MB', target: { atMost: PEAK_MB_MAX } },
      { name: 'growth while sinks stand still', value: stalled.growth, unit: 'MB', target: { atMost: GROWTH_MB_MAX } },
      { name: 'growth while a peer is frozen', value: frozen.growth, unit: 'MB', target: { atMost: GROWTH_MB_MAX } },
    ];
  },
};

interface Overview {
  readonly 'slots-total': number;
}

interface JobDetails {
  readonly vertices: readonly { readonly metrics: { readonly 'write-records': number } }[];
}

async function submit(cluster: LocalCluster, stallFile: string): Promise<string> {
  const form = new FormData();
  const jar = await packJob(join(packageRoot(), 'bench/jobs/stalled-sink.ts'));
  form.append('jarfile', new Blob([new Uint8Array(jar)]), 'stalled-sink.mjs');
  const url = cluster.masters[0]?.restUrl;
  const uploaded = await ask<{ filename: string }>(`${url}/jars/upload`, { method: 'POST', body: form });
  const id = uploaded.filename.split('/').at(-1);
  const { jobid } = await ask<{ jobid: string }>(`${url}/jars/${id}/run`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ programArgsList: [stallFile], parallelism: 4 }),
  });
  return jobid;
}

/** The lowest and the highest over all sinks. */
async function latencies(cluster: LocalCluster, jobId: string): Promise<string> {
  const ids = await cluster.get<readonly { readonly id: string }[]>(`/jobs/${jobId}/metrics`);
  const medians = ids.map(({ id }) => id).filter((id) => id.endsWith('latency_median'));
  const path = `/jobs/${jobId}/metrics?get=${medians.join(',')}`;
  const values = (await cluster.get<readonly { readonly value: string }[]>(path)).map(({ value }) => Number(value));
  return values.length === 0 ? 'no' : `${Math.min(...values)} to ${Math.max(...values)}`;
}

async function ask<T>(url: string, init: RequestInit): Promise<T> {
  const response = await fetch(url, init);
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as T;
}

/** How much more than at the beginning the processes took at any time. */
async function watch(pids: readonly number[], forMs: number) {
  const before = pids.map(megabytes);
  const peaks = [...before];
  const endMs = performance.now() + forMs;
  while (performance.now() < endMs) {
    await wait(SAMPLE_MS);
    for (const [i, pid] of pids.entries()) peaks[i] = Math.max(peaks[i] ?? 0, megabytes(pid));
  }
  const growth = Math.max(...peaks.map((peak, i) => peak - (before[i] ?? 0)));
  return { growth, text: `from ${before.join(' and ')} MB to at most ${peaks.join(' and ')} MB` };
}

const megabytes = (pid: number) => statusOf(pid, 'VmRSS');
const peakMegabytes = (pid: number) => statusOf(pid, 'VmHWM');

/** From the kernel: `VmRSS:   123456 kB`. */
function statusOf(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kilobytes = Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(status)?.[1] ?? Number.NaN);
  return Math.round((kilobytes * 1024) / MIB);
}
