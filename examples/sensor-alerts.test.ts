import { afterEach, expect, test, vi } from 'vitest';

afterEach(() => {
  vi.restoreAllMocks();
});

test('hot and silent sensors raise alerts, the same ones in every run', { timeout: 120_000 }, async () => {
  let printed = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((chunk: string | Uint8Array, ...rest: unknown[]) => {
    printed += chunk.toString();
    const done = rest.find((argument) => typeof argument === 'function') as (() => void) | undefined;
    done?.();
    return true;
  });
  const run = async (): Promise<readonly string[]> => {
    printed = '';
    vi.resetModules();
    await import('./sensor-alerts.ts');
    const alerts = printed.split('\n').filter((line) => line.includes(' has been '));
    // The subtask that printed it, before `>`, says nothing about the alert.
    return alerts.map((line) => line.replace(/^\d+> /, '')).sort();
  };
  const alerts = await run();
  expect(alerts.filter((alert) => alert.includes('sensor-5 has been hot')).length).toBeGreaterThanOrEqual(3);
  expect(alerts.filter((alert) => alert.includes('sensor-1 has been silent')).length).toBeGreaterThanOrEqual(2);
  expect(await run()).toEqual(alerts);
});
