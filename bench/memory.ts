import { createWriteStream, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { RestClient } from '../src/client/rest-client.ts';
import { SystemClock } from '../src/kernel/clock.ts';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import { LocalCluster } from '../test-support/local-cluster.ts';
import { until } from '../test-support/until.ts';
import type { Benchmark } from './lib/benchmark.ts';
import { vocabulary } from './lib/sample-data.ts';
import { SeededNumbers } from './lib/seeded.ts';

/** What the target is about; less for a quick look. */
const INPUT_MB = Number(process.env.MILLRACE_BENCH_INPUT_MB ?? 1_000);
const WORDS = 100_000;
const TARGET_MB = 300;
const POLL_MS = 100;
const LIMIT_MS = 900_000;

/** The whole worker process, as the operating system sees it, while it counts the words of a large file. */
export const memoryBench: Benchmark = {
  name: 'memory',
  description: `memory of a worker with two slots that counts the words of 1 GB with ${WORDS.toLocaleString('en-US')} keys, checkpoints every second`,
  async run(_options, say) {
    const dir = await mkdtemp(join(tmpdir(), 'millrace-bench-memory-'));
    let cluster: LocalCluster | undefined;
    try {
      const input = join(dir, 'input');
      await mkdir(input);
      await writeInput(join(input, 'text'), INPUT_MB * 1e6);
      cluster = await LocalCluster.start({ dir, masters: 1, workers: 1, slotsPerWorker: 2 });
      const client = new RestClient(new SystemClock(), {
        addresses: cluster.masters.map(({ restUrl }) => restUrl),
        patienceMs: 30_000,
      });
      const bundle = await packJob(join(packageRoot(), 'bench/lib/word-count-job.ts'));
      const jarId = await client.uploadJar('word-count.mjs', bundle);
      const startMs = performance.now();
      const jobId = await client.runJar(jarId, { entryClass: 'WordCount', programArgsList: [input] });
      const { pid } = cluster.workers[0]?.process ?? { pid: 0 };
      const idleMb = residentMb(pid);
      const samples: number[] = [];
      await until(
        'the job to end',
        async () => {
          samples.push(residentMb(pid));
          const { state } = await client.job(jobId);
          if (state === 'FAILED' || state === 'CANCELED') throw new Error(`the job ended ${state}`);
          return state === 'FINISHED';
        },
        { everyMs: POLL_MS, timeoutMs: LIMIT_MS },
      );
      const seconds = (performance.now() - startMs) / 1e3;
      const peak = peakMb(pid);
      samples.sort((a, b) => a - b);
      const usual = samples[samples.length >> 1] ?? Number.NaN;
      say(
        `${(INPUT_MB / seconds).toFixed(1)} MB/s; resident: ${idleMb.toFixed(0)} MB before, ${usual.toFixed(0)} MB as a rule, ${peak.toFixed(0)} MB at most`,
      );
      return [
        {
          name: 'worker with two slots, resident memory at most',
          value: peak,
          unit: 'MB',
          target: { atMost: TARGET_MB },
        },
        { name: 'resident memory as a rule', value: usual, unit: 'MB' },
        { name: 'duration', value: seconds * 1e3, unit: 'ms' },
      ];
    } finally {
      await cluster?.kill();
      await rm(dir, { recursive: true, force: true });
    }
  },
};

/** Lines of ten words, some far more often than others. */
async function writeInput(path: string, bytes: number): Promise<void> {
  const words = vocabulary(WORDS);
  const numbers = new SeededNumbers(11);
  const stream = createWriteStream(path, { highWaterMark: 4 * 1024 * 1024 });
  // Blocks of lines, written again and again in another order: all words occur, and it takes seconds, not minutes.
  const blocks = Array.from({ length: 64 }, (_, block) => {
    const lines: string[] = [];
    for (let i = block; i < WORDS; i += 64) {
      const line = [words[i]];
      for (let n = 0; n < 9; n++) line.push(words[numbers.skewedBelow(WORDS)]);
      lines.push(line.join(' '));
    }
    return Buffer.from(`${lines.join('\n')}\n`);
  });
  let written = 0;
  for (let i = 0; written < bytes; i++) {
    const block = i < blocks.length ? blocks[i] : blocks[numbers.below(blocks.length)];
    if (block === undefined) break;
    written += block.length;
    if (!stream.write(block)) await once(stream, 'drain');
  }
  stream.end();
  await once(stream, 'finish');
}

const residentMb = (pid: number) => statusMb(pid, 'VmRSS');
/** Since the process began. */
const peakMb = (pid: number) => statusMb(pid, 'VmHWM');

function statusMb(pid: number, field: string): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(found?.[1] ?? Number.NaN) / 1_000;
}
