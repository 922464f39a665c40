import { join } from 'node:path';
import { LocalCluster } from '../../../test-support/local-cluster.ts';
import { packageRoot } from '../../../test-support/ensure-infra.ts';
import { asError } from '../../kernel/errors.ts';
import { untilTold } from '../until-told.ts';

/**
 * `npm start`: a highly available cluster on this machine, with the dashboard, until Ctrl-C. Three masters and
 * two workers on the embedded stores in `.millrace/`; what was submitted is there again after the next start.
 */
const FIRST_REST_PORT = 8081;

async function main(): Promise<void> {
  const dir = join(packageRoot(), '.millrace', 'local');
  const cluster = await LocalCluster.start({
    dir,
    masters: 3,
    workers: 2,
    slotsPerWorker: 2,
    restPorts: [FIRST_REST_PORT, FIRST_REST_PORT + 1, FIRST_REST_PORT + 2],
    config: ['execution.checkpointing.interval=5 s'],
  });
  for (const master of cluster.masters)
    console.log(`master   ${master.id}  pid ${master.process.pid}  ${master.restUrl}`);
  for (const worker of cluster.workers) console.log(`worker   ${worker.id}  pid ${worker.process.pid}  2 slots`);
  console.log(`logs     ${join(dir, 'logs')}`);
  console.log(`\ndashboard: ${cluster.masters[0]?.restUrl ?? ''}  (any master's address shows the same)`);
  console.log('run a job: npx millrace run examples/word-count.ts');
  console.log('try it:    kill -9 the pid of the master that leads, and watch another one take over. Ctrl-C ends all.');
  const told = untilTold();
  await Promise.race([
    told,
    ...[...cluster.masters, ...cluster.workers].map((one) => endOf(one.id, one.process.exited, told)),
  ]);
  console.log('stopping …');
  await cluster.stop();
}

/** Says that a process has ended by itself; the others go on, which is the point of it all. */
async function endOf(id: string, exited: Promise<unknown>, told: Promise<unknown>): Promise<void> {
  const first = await Promise.race([exited.then(() => 'ended'), told]);
  if (first === 'ended') console.log(`${id} has ended.`);
  await told;
}

try {
  await main();
} catch (error) {
  console.error(`npm start: ${asError(error).message}`);
  process.exitCode = 1;
}
