// Preloaded into a process under test: on SIGUSR2 its event loop stands still, as under a runaway loop.
process.on('SIGUSR2', () => {
  const endMs = performance.now() + 4_000;
  while (performance.now() < endMs);
});
