import type { Checker } from './checker.ts';

/** 2, at the workers: none obeys a command below the highest token that it has obeyed. */
export const workerObedience: Checker = (world) => ({
  workerObeyed({ worker, method, token, highest }) {
    if (token < highest) world.violated(2, `${worker} obeyed ${method} of token ${token} after ${highest}`);
  },
});
