/** Resolves with the first signal that asks this process to stop. A second one ends it at once. */
export function untilTold(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let told = false;
    const stop = (signal: NodeJS.Signals) => {
      if (told) process.exit(1);
      told = true;
      resolve(signal);
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
