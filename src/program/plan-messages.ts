import type { EnvironmentDefaults } from '../api/execution-context.ts';
import type { JobPlan } from '../contracts/job-graph.ts';
import type { ErrorInfo } from '../kernel/errors.ts';

/** What the planner tells the process that runs a program. */
export interface PlanTask {
  readonly bundleName: string;
  readonly moduleUrl: string;
  readonly libraryUrl: string;
  readonly entryClass: string | undefined;
  readonly args: readonly string[];
  readonly defaults: EnvironmentDefaults;
  /** `inspect` only lists entries; `plan` builds the graph; `plan-with-splits` asks the sources as well. */
  readonly mode: 'inspect' | 'plan' | 'plan-with-splits';
  /** The process ends itself after this long, whatever happens to the planner. */
  readonly timeLimitMs: number;
}

/** The one message that comes back. */
export type PlanAnswer =
  | { readonly kind: 'entries'; readonly entries: readonly string[] }
  | { readonly kind: 'plan'; readonly plan: JobPlan }
  | {
      readonly kind: 'failed';
      readonly error: ErrorInfo;
      /** A SyntaxError of which the runtime does not tell the place. */
      readonly placeUnknown: boolean;
    };
