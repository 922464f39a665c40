import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { MUTANTS, type Mutant } from './mutants.ts';

/**
 * `npm run sim:mutants -- [--seeds 2000] [--seed 1] [--only NAME]… [--parallel 2] [--minutes 6]`
 *
 * Plants one known bug after the other and lets the simulator look for it. Ends with 1 unless 95 % are caught.
 */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '2000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string', multiple: true },
    parallel: { type: 'string', default: '2' },
    minutes: { type: 'string', default: '6' },
  },
});

interface Verdict {
  readonly mutant: Mutant;
  readonly kind: 'caught' | 'survived' | 'ran out of time' | 'broken';
  readonly detail: string;
}

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

function judge(mutant: Mutant): Promise<Verdict> {
  const args = [
    ...process.execArgv,
    '--import',
    here('./mutant-hook.js'),
    here('./main.js'),
    '--quiet',
    '--stop-after',
    '1',
  ];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...args, '--seed', values.seed, '--seeds', values.seeds],
      { env: { ...process.env, MUTANT: mutant.name }, timeout: Number(values.minutes) * 60_000, maxBuffer: 1e8 },
      (error, stdout, stderr) => {
        const found = /^seed (\d+): (.*)$/m.exec(stdout);
        const [, seed, what = ''] = found ?? [];
        if (seed !== undefined)
          resolve({
            mutant,
            kind: 'caught',
            detail: `after ${Number(seed) - Number(values.seed) + 1} seeds: ${what.slice(0, 140)}`,
          });
        else if (error === null) resolve({ mutant, kind: 'survived', detail: `${values.seeds} seeds` });
        else if (error.killed) resolve({ mutant, kind: 'ran out of time', detail: '' });
        else resolve({ mutant, kind: 'broken', detail: stderr.slice(-400) });
      },
    );
  });
}

const wanted = MUTANTS.filter(({ name }) => values.only === undefined || values.only.includes(name));
const queue = [...wanted];
const verdicts: Verdict[] = [];
await Promise.all(
  Array.from({ length: Number(values.parallel) }, async () => {
    for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
      const verdict = await judge(mutant);
      verdicts.push(verdict);
      console.log(`${verdict.kind.padEnd(10)} ${mutant.name.padEnd(32)} ${verdict.detail}`);
    }
  }),
);
const caught = verdicts.filter(({ kind }) => kind === 'caught').length;
console.log(
  `${caught} of ${wanted.length} mutants caught within ${values.seeds} seeds (${Math.round((100 * caught) / wanted.length)} %)`,
);
for (const { mutant, kind } of verdicts)
  if (kind !== 'caught') console.log(`  ${kind}: ${mutant.name}: ${mutant.breaks}`);
if (caught < 0.95 * wanted.length) process.exitCode = 1;
