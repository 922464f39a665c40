import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { StreamExecutionEnvironment } from 'millrace';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeTempFolder, removeTempFolder } from '../../test-support/guardian.ts';
import { compareLines } from '../checkers/check-lines.ts';
import { main as counts } from './counts.ts';
import { main as forward } from './forward.ts';
import { main as pairs } from './pairs.ts';
import { expectedLines, type WorkloadName, type WorkloadOptions } from './records.ts';
import { main as windows } from './windows.ts';

let folder: string;
beforeEach(() => {
  folder = makeTempFolder('workload');
});
afterEach(() => removeTempFolder(folder));

const PROGRAMS = { counts, windows, pairs, forward };

test.each(Object.keys(PROGRAMS) as WorkloadName[])(
  'without faults %s writes exactly what is expected',
  async (name) => {
    const [output, stamps] = [join(folder, 'output'), join(folder, 'stamps')];
    mkdirSync(output);
    const options: WorkloadOptions = { records: 3_000, ratePerSecond: 30_000, parallelism: 2, output, stamps };
    await PROGRAMS[name](StreamExecutionEnvironment.getExecutionEnvironment(), [JSON.stringify(options)]);
    const files = readdirSync(output).filter((file) => !file.startsWith('.'));
    const lines = files.flatMap((file) => readFileSync(join(output, file), 'utf8').trimEnd().split('\n'));
    expect(compareLines(expectedLines(name, 3_000), lines)).toEqual([]);
    expect(readdirSync(stamps).length).toBeGreaterThan(0);
  },
);
