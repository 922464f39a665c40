import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const ROOMS = ['src', 'ha', 'chaos-tests', 'bench', 'examples', 'test-support', 'scripts'];
const ELSEWHERE = ['**/node_modules/**', 'dist/**'];
// What job authors import; in tests it is the source, not what was compiled last.
const alias = { millrace: fileURLToPath(new URL('src/main/index.ts', import.meta.url)) };

// The SDK announces its own future once per process.
const env = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: {
          name: 'unit',
          env,
          include: ROOMS.map((room) => `${room}/**/*.test.ts`),
          exclude: [...ELSEWHERE, '**/*.it.test.ts', 'chaos-tests/**'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        resolve: { alias },
        // Real processes: etcd, S3, masters and workers. One file at a time, or two cores starve.
        test: {
          name: 'integration',
          env,
          include: [...ROOMS.map((room) => `${room}/**/*.it.test.ts`), 'chaos-tests/**/*.test.ts'],
          exclude: ELSEWHERE,
          globalSetup: 'test-support/vitest-global-setup.ts',
          fileParallelism: false,
          sequence: { groupOrder: 1 }, // After the unit tests, not beside them.
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
});
