import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packJob } from '../src/program/pack.ts';
import { packageRoot } from '../test-support/ensure-infra.ts';
import type { LocalCluster } from '../test-support/local-cluster.ts';
import { compareLines } from './checkers/check-lines.ts';
import { KEYS } from './jobs/until-told.ts';
import { RestCaller } from './rest-caller.ts';

/** The job `until-told` on a cluster: submitted, watched, told to end, judged. */
export class UntilToldRun {
  private constructor(
    private readonly rest: RestCaller,
    private readonly output: string,
    private readonly signal: string,
    readonly jobId: string,
  ) {}

  static async submit(cluster: LocalCluster, dir: string): Promise<UntilToldRun> {
    const rest = new RestCaller(cluster);
    const output = join(dir, 'output');
    const signal = join(dir, 'told');
    mkdirSync(output, { recursive: true });
    const jar = await rest.jar('until-told.mjs', await packJob(join(packageRoot(), 'chaos-tests/jobs/until-told.ts')));
    const answer = await rest.run(jar, { programArgsList: [output, signal] });
    if (answer.status !== 200) throw new Error(`the job was refused: ${answer.errors}`);
    return new UntilToldRun(rest, output, signal, String(answer.body.jobid));
  }

  /** Lines committed so far. */
  lines(): string[] {
    return readdirSync(this.output, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/^[._]/.test(entry.name))
      .flatMap((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8').split('\n'))
      .filter((line) => line !== '');
  }

  async state(): Promise<unknown> {
    return (await this.rest.call('GET', `/jobs/${this.jobId}`)).body.state;
  }

  /** Tells the job to end, and gives what is wrong with how it ended and with its output. */
  async end(): Promise<string[]> {
    writeFileSync(this.signal, '');
    const state = await this.rest.end(this.jobId);
    const problems = state === 'FINISHED' ? [] : [`the job ended ${state}`];
    return [...problems, ...judge(this.lines())];
  }
}

/** Every count of every key once, up to what the sources say that they have given. */
function judge(lines: readonly string[]): string[] {
  const totals = lines.filter((line) => line.startsWith('total-'));
  if (totals.length !== 2)
    return [`output: ${totals.length} of 2 sources have said how much they gave: ${totals.join()}`];
  const expected = totals.flatMap((line) => {
    const [name = '', total] = line.slice('total-'.length).split(' ');
    return Array.from({ length: Number(total) }, (_, n) => `${name}-${n % KEYS} ${Math.floor(n / KEYS) + 1}`);
  });
  return compareLines([...totals, ...expected], lines);
}
