/** The counters that all cells of a backend share. */
export interface Epochs {
  /** A multiple of {@link EPOCH}. */
  current: number;
  /** The newest cut of a pending snapshot: one comparison tells the usual case, that none needs a cell. */
  needed: number;
}

/** Ends the current epoch and gives the cut: no cell of the epoch is later, all cells of the next are. */
export function endEpoch(epochs: Epochs): number {
  const cut = epochs.current + EPOCH - 1;
  epochs.current += EPOCH;
  return cut;
}

/**
 * Epochs count in steps of this. What is added to the step says how many steps before it the cell really
 * changed, or more: at the limit nothing is lost but the knowledge that the cell is older still.
 */
const EPOCH = 16;

/** The epoch after `cut`, for a cell that has not changed. */
export function hiddenFrom(epoch: number, cut: number): number {
  const step = Math.floor(cut / EPOCH) + 1;
  return step * EPOCH + Math.min(EPOCH - 1, step - changedStep(epoch));
}

/** Whether a cell of that epoch has changed after `cut`, or may have. */
export function changedAfter(epoch: number, cut: number): boolean {
  return changedStep(epoch) > Math.floor(cut / EPOCH);
}

function changedStep(epoch: number): number {
  return Math.floor(epoch / EPOCH) - (epoch % EPOCH);
}

/** Before all epochs. */
export const NO_CUT = -1;
/** The epoch of a removed cell: later than any cut. */
export const DEAD = 2 ** 30 - 1;
