/** Repeatable data: the same numbers in every run (a linear congruential generator, as in Numerical Recipes). */
export class SeededNumbers {
  constructor(private state = 42) {}

  /** From 0 up to, not including, `limit`. */
  below(limit: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.state / 2 ** 32) * limit);
  }

  /** Small numbers far more often than large ones, as words are in texts. */
  skewedBelow(limit: number): number {
    return Math.min(this.below(limit), this.below(limit), this.below(limit));
  }
}
