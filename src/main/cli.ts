#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command, InvalidArgumentError } from 'commander';
import {
  cancelJob,
  type ClientContext,
  disposeSavepoint,
  handOver,
  jobStatus,
  listJobs,
  runJob,
  stopJob,
  takeSavepoint,
} from '../client/commands.ts';
import { parseAddresses, RestClient } from '../client/rest-client.ts';
import { SystemClock } from '../kernel/clock.ts';
import { asError, isMillraceError, MillraceError } from '../kernel/errors.ts';
import { SystemRandom } from '../kernel/random.ts';
import { loadConfiguration, secretEnvironmentNames } from './config/load-config.ts';
import type { Configuration } from './config/options.ts';
import { createLogger } from './logger.ts';

/** `millrace`: starts roles, and talks to a cluster. Imports a role's code only when it is asked for. */
const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };

// The S3 SDK announces when it will drop this version of Node, once in each thread that loads it and not as
// a log line. Inherited by the slots' threads; whoever wants to read it sets it to false.
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';

interface RoleFlags {
  readonly config?: string;
  readonly define: readonly string[];
}

interface ClientFlags {
  readonly jobmanager: string;
}

const collect = (value: string, previous: readonly string[]) => [...previous, value];
const positive = (text: string) => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 is expected');
  return value;
};

const program = new Command('millrace')
  .description('A stream-processing cluster that keeps running when its masters die.')
  .version(version)
  .showHelpAfterError();

function role(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--config <file>', 'YAML file with settings (default: the one named by MILLRACE_CONFIG_FILE)')
    .option('-D, --define <key=value>', 'a setting; wins over file and environment', collect, []);
}

role('jobmanager', 'start a master: several may run, one of them leads').action(async (flags: RoleFlags) => {
  const configuration = configure(flags);
  const { runJobManager } = await import('./run-jobmanager.ts');
  await runJobManager(configuration, createLogger(configuration.logLevel, { role: 'jobmanager' }), version);
});

role('taskmanager', 'start a worker with its slots').action(async (flags: RoleFlags) => {
  const configuration = configure(flags);
  const { runTaskManager } = await import('./run-taskmanager.ts');
  await runTaskManager(configuration, createLogger(configuration.logLevel, { role: 'taskmanager' }));
});

function configure(flags: RoleFlags): Configuration {
  const { env } = process;
  const configuration = loadConfiguration({ file: flags.config ?? env.MILLRACE_CONFIG_FILE, args: flags.define, env });
  // Users' programs run in threads and children of this process: they inherit its environment, not its secrets.
  for (const name of secretEnvironmentNames()) delete env[name];
  return configuration;
}

function client(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('-m, --jobmanager <addresses>', 'REST of one or more masters: host:port,host:port', 'localhost:8081');
}

client('run', 'pack a job file and run it')
  .argument('<file>', 'TypeScript or JavaScript module; arguments for it follow after --')
  .argument('[args...]', 'arguments of the program')
  .option('-c, --class <export>', 'exported function to run (default: main, then the default export)')
  .option('-p, --parallelism <n>', 'default parallelism of the program', positive)
  .option('-d, --detached', 'return once the job is submitted', false)
  .option('-s, --from-savepoint <path>', 'start from a savepoint or retained checkpoint')
  .option('--claim-mode <mode>', 'whose it is then: claim (the job removes it) or no_claim (default)')
  .option('--allow-non-restored-state', 'drop state of operators that the program does not have any more', false)
  .action(
    async (
      file: string,
      args: string[],
      flags: ClientFlags & {
        class?: string;
        parallelism?: number;
        detached: boolean;
        fromSavepoint?: string;
        claimMode?: string;
        allowNonRestoredState: boolean;
      },
    ) => {
      process.exitCode = await runJob(await context(flags), {
        file,
        args,
        entryClass: flags.class,
        parallelism: flags.parallelism,
        detached: flags.detached,
        fromSavepoint: flags.fromSavepoint,
        claimMode: flags.claimMode,
        allowNonRestoredState: flags.allowNonRestoredState,
      });
    },
  );

client('list', 'list running jobs')
  .option('-a, --all', 'also those that have ended', false)
  .action(async (flags: ClientFlags & { all: boolean }) => {
    process.exitCode = await listJobs(await context(flags), { all: flags.all });
  });

client('status', 'show one job')
  .argument('<jobId>')
  .action(async (jobId: string, flags: ClientFlags) => {
    process.exitCode = await jobStatus(await context(flags), jobId);
  });

client('cancel', 'cancel a job')
  .argument('<jobId>')
  .option('-w, --wait', 'return only when the job has ended', false)
  .action(async (jobId: string, flags: ClientFlags & { wait: boolean }) => {
    process.exitCode = await cancelJob(await context(flags), jobId, { wait: flags.wait });
  });

client('savepoint', 'take a savepoint of a running job, or delete one')
  .argument('[jobId]')
  .argument('[directory]', 'where to; a folder under the savepoints of the cluster')
  .option('-d, --dispose <path>', 'delete the savepoint at this path')
  .action(
    async (jobId: string | undefined, directory: string | undefined, flags: ClientFlags & { dispose?: string }) => {
      if ((jobId === undefined) === (flags.dispose === undefined))
        throw new MillraceError('INVALID_ARGUMENT', 'name either a job or, with --dispose, a savepoint to delete');
      process.exitCode =
        jobId === undefined
          ? await disposeSavepoint(await context(flags), flags.dispose ?? '')
          : await takeSavepoint(await context(flags), jobId, { targetDirectory: directory, cancelJob: false });
    },
  );

client('stop', 'end a job with a savepoint')
  .argument('<jobId>')
  .option('-d, --drain', 'let windows and timers fire before: for a job that will not go on', false)
  .option('-p, --savepoint-path <directory>', 'where to; a folder under the savepoints of the cluster')
  .action(async (jobId: string, flags: ClientFlags & { drain: boolean; savepointPath?: string }) => {
    process.exitCode = await stopJob(await context(flags), jobId, {
      targetDirectory: flags.savepointPath,
      drain: flags.drain,
    });
  });

client('handover', 'let another master lead, without a pause for its jobs')
  .argument('<leader>', 'the master that leads now: named, so that nothing happens by mistake')
  .option('-t, --to <id>', 'the master that shall lead (default: whichever comes first)')
  .action(async (leader: string, flags: ClientFlags & { to?: string }) => {
    process.exitCode = await handOver(await context(flags), { leader, to: flags.to });
  });

async function context(flags: ClientFlags): Promise<ClientContext> {
  const clock = new SystemClock();
  return {
    rest: new RestClient(clock, { addresses: parseAddresses(flags.jobmanager), patienceMs: 15_000 }),
    clock,
    random: new SystemRandom(),
    print: (line) => console.log(line),
    pack: async (file) => (await import('../program/pack.ts')).packJob(file),
  };
}

try {
  await program.parseAsync();
} catch (error) {
  // A person reads this: the message and what to do, the stack only for what should never happen.
  const known = isMillraceError(error) && error.code !== 'INTERNAL';
  console.error(
    known ? `millrace: ${error.message}${error.hint === undefined ? '' : `\n${error.hint}`}` : asError(error).stack,
  );
  process.exitCode = isMillraceError(error, 'CONFIGURATION') || isMillraceError(error, 'INVALID_ARGUMENT') ? 2 : 1;
}
