import { loadConfiguration } from '../../src/main/config/load-config.ts';
import { objectStoreSettings, openObjects } from '../../src/main/open-objects.ts';
import { openCoordination } from '../../src/main/open-stores.ts';
import { SystemClock } from '../../src/kernel/clock.ts';
import { CloseStack } from '../../src/kernel/lifecycle.ts';
import { silentLogger } from '../../src/kernel/log.ts';
import { SystemRandom } from '../../src/kernel/random.ts';

/** Everything that one cluster has in its stores. */
export interface StoreContents {
  /** Coordination: key -> value, without the cluster's prefix. */
  readonly keys: ReadonlyMap<string, string>;
  /** Objects, likewise. */
  readonly objects: readonly string[];
}

/** Looks into the stores that the settings (`key=value`) name. */
export class StoreInspector implements AsyncDisposable {
  private constructor(
    private readonly stack: CloseStack,
    readonly contents: () => Promise<StoreContents>,
  ) {}

  static async open(config: readonly string[]): Promise<StoreInspector> {
    const configuration = loadConfiguration({ file: undefined, args: config, env: {} });
    const deps = { clock: new SystemClock(), random: new SystemRandom(), log: silentLogger };
    const stack = new CloseStack();
    const coordination = await openCoordination(deps, configuration);
    stack.add('coordination', () => coordination.close());
    const objects = await openObjects(deps, objectStoreSettings(configuration));
    stack.add('objects', () => objects.close());
    const root = `${configuration.clusterId}/`;
    return new StoreInspector(stack, async () => {
      const { entries } = await coordination.list(root);
      const keys = new Map(entries.map(({ key, value }) => [key.slice(root.length), value]));
      const names: string[] = [];
      for await (const { key } of objects.list(root)) names.push(key.slice(root.length));
      return { keys, objects: names };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stack.close();
  }
}

/**
 * What an ended job may leave behind once the cluster is quiet: its result, marked clean, and the one
 * object with the details of it. No graph, no checkpoint, no counter, no jar, no wish, no lease. Two things
 * may wait for the sweeper, whose grace is longer than any test: the bundle of a jar that was deleted, and
 * the sweeper's own probe when it was killed in the middle of a pass.
 */
export function leftovers(contents: StoreContents, jobId: string, clusterStopped: boolean): string[] {
  const result = contents.keys.get(`results/${jobId}`);
  const problems: string[] = [];
  if (result === undefined) problems.push('there is no result of the job');
  else if (!/"dirty":false/.test(result)) problems.push(`the result was not marked clean: ${result}`);
  // Each under a lease of its own, so that those of the killed go soon.
  const ofLiving = (key: string) => !clusterStopped && (key === 'leader' || /^(replicas|workers)\//.test(key));
  for (const key of contents.keys.keys())
    if (key !== `results/${jobId}` && key !== 'doubt' && !ofLiving(key)) problems.push(`key ${key} is left`);
  const details = contents.objects.filter((name) => name.startsWith(`jobs/${jobId}/details-`));
  if (details.length !== 1) problems.push(`${details.length} objects with details of the job`);
  for (const name of contents.objects)
    if (!details.includes(name) && !/^(jars|sweep)\//.test(name)) problems.push(`object ${name} is left`);
  return problems;
}
