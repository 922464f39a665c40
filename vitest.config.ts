import { defineConfig } from 'vitest/config';

const ROOMS = ['src', 'ha', 'chaos-tests', 'bench', 'examples', 'test-support', 'scripts'];
const ELSEWHERE = ['**/node_modules/**', 'dist/**'];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ROOMS.map((room) => `${room}/**/*.test.ts`),
          exclude: [...ELSEWHERE, '**/*.it.test.ts', 'chaos-tests/**'],
          testTimeout: 10_000,
          hookTimeout: 10_000,
        },
      },
      {
        // Real processes: etcd, S3, masters and workers. One file at a time, or two cores starve.
        test: {
          name: 'integration',
          include: [...ROOMS.map((room) => `${room}/**/*.it.test.ts`), 'chaos-tests/**/*.test.ts'],
          exclude: ELSEWHERE,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
});
