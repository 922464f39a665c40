import { type FieldPlan, leavesOf, LEAVES_MAX } from './plan.ts';
import { mergePlans } from './shape.ts';

/** Records of a shape seen before it gets columns: enough to see which fields are optional. */
const SEEN_MIN = 8;
const CANDIDATES_MAX = 32;
/** After this many looks in vain only one record in {@link SAMPLE_EVERY} is looked at. */
const EAGER_LOOKS = 1_024;
const SAMPLE_EVERY = 64;

interface Candidate {
  seen: number;
  plan: FieldPlan;
}

/** Watches the records that have no columns yet, and says when a shape is frequent enough to get some. */
export class ShapeLearner {
  private readonly candidates = new Map<string, Candidate>();
  private looks = 0;
  private skipped = 0;

  /** Whether the next record is worth a look: a stream without any regular shape must not pay for the search. */
  get curious(): boolean {
    if (this.looks < EAGER_LOOKS || ++this.skipped === SAMPLE_EVERY) {
      this.skipped = 0;
      return true;
    }
    return false;
  }

  missed(): void {
    this.looks++;
  }

  /** The plan, once. */
  observe(key: string, plan: FieldPlan): FieldPlan | undefined {
    this.looks++;
    const candidate = this.candidates.get(key);
    if (candidate === undefined) {
      if (this.candidates.size >= CANDIDATES_MAX) this.candidates.clear();
      this.candidates.set(key, { seen: 1, plan });
      return undefined;
    }
    candidate.seen++;
    candidate.plan = mergePlans(candidate.plan, plan, { firm: false });
    if (candidate.seen < SEEN_MIN) return undefined;
    this.candidates.delete(key);
    // Each record was small enough, but all their optional parts together are not.
    if (leavesOf(candidate.plan) > LEAVES_MAX) return undefined;
    this.looks = 0;
    return candidate.plan;
  }
}
