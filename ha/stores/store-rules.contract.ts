import { checkpointRules } from './checkpoint-rules.contract.ts';
import { fencingRules } from './fencing-rules.contract.ts';
import { operationRules } from './operation-rules.contract.ts';
import { raceRules } from './race-rules.contract.ts';
import type { StoreBackend } from './store-world.fixture.ts';
import { submissionRules } from './submission-rules.contract.ts';
import { terminationRules } from './termination-rules.contract.ts';
import { Rules, type StoreRulesOptions } from './transitions.fixture.ts';

/**
 * The rules of "Submission", "Checkpoints" and "Termination", each interrupted at every write of its
 * transition, in every way; then a new leader recovers. Run against the model and against real stores.
 */
export function storeRules(open: () => StoreBackend, options: StoreRulesOptions = {}): void {
  const rules = new Rules(open, options);
  submissionRules(rules);
  checkpointRules(rules);
  operationRules(rules);
  terminationRules(rules);
  raceRules(rules);
  fencingRules(rules);
}
