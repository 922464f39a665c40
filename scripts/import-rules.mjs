/**
 * Who may import whom: the table of ARCHITECTURE.md, as data.
 *
 * A room may always import itself. A file that belongs to no room is a violation, so a new folder
 * has to be entered here before it can be used. The longest matching room wins, so `src/web/app`
 * is not part of `src/web`.
 */

/** @typedef {{ imports: readonly string[], packages?: readonly string[], typesOnly?: readonly string[], ports?: boolean, dev?: boolean }} Room */

const EVERYWHERE = ['src/', 'ha/'];

/**
 * - `imports`: rooms, or prefixes that end in `/`.
 * - `typesOnly`: rooms of which only types may be taken.
 * - `packages`: when given, the only npm packages allowed; otherwise any of `dependencies`.
 * - `ports`: may import, as types, the ports that role rooms declare (`ports.ts`, `*-port.ts`, `*-store.ts`).
 * - `dev`: development code, which may also use `devDependencies`.
 *
 * @type {Readonly<Record<string, Room>>}
 */
export const ROOMS = {
  'src/kernel': { imports: [], packages: [] },
  'src/contracts': { imports: ['src/kernel'], packages: ['zod'] },
  'src/graph': { imports: ['src/kernel', 'src/contracts'] },
  'src/api': { imports: ['src/kernel', 'src/contracts', 'src/graph'] },
  'src/state': { imports: ['src/kernel', 'src/contracts'] },
  'src/exchange': { imports: ['src/kernel', 'src/contracts'] },
  'src/checkpoint': { imports: ['src/kernel', 'src/contracts', 'src/graph'] },
  'src/program': { imports: ['src/kernel', 'src/contracts', 'src/graph', 'src/api'] },
  'src/subtask': {
    imports: ['src/kernel', 'src/contracts', 'src/api', 'src/state', 'src/exchange', 'src/program'],
  },
  'src/connectors': { imports: ['src/kernel', 'src/contracts', 'src/api'] },
  'src/taskmanager': { imports: ['src/kernel', 'src/contracts', 'src/subtask', 'src/state', 'src/exchange'] },
  'src/resourcemanager': { imports: ['src/kernel', 'src/contracts'] },
  'src/jobmaster': { imports: ['src/kernel', 'src/contracts', 'src/graph', 'src/checkpoint'] },
  'src/dispatcher': { imports: ['src/kernel', 'src/contracts', 'src/graph'] },
  'src/rest': { imports: ['src/kernel', 'src/contracts'] },
  'src/web': { imports: ['src/contracts'] },
  'src/web/app': { imports: [], typesOnly: ['src/contracts'], dev: true },
  'src/client': { imports: ['src/kernel', 'src/contracts', 'src/graph', 'src/api', 'src/program'] },
  'src/rpc': { imports: ['src/kernel', 'src/contracts'] },
  'src/main': { imports: EVERYWHERE },
  // The demonstration starts a real etcd and a real S3 server when asked to.
  'src/main/demo': { imports: [...EVERYWHERE, 'test-support'] },
  ha: { imports: ['src/kernel', 'src/contracts'], ports: true },
  // Starts the infrastructure that tests, benches and the demonstration need; knows of no role.
  'test-support': { imports: ['src/kernel', 'src/contracts'], dev: true },
  examples: { imports: [] },
  bench: { imports: [...EVERYWHERE, 'test-support', 'examples'], dev: true },
  'chaos-tests': { imports: [...EVERYWHERE, 'test-support', 'examples', 'bench'], dev: true },
};

/** What a test beside the source may import: all but the chaos tests, which nothing imports. */
export const TEST_ROOM = { imports: [...EVERYWHERE, 'test-support', 'examples', 'bench'], dev: true };

/** Tests, and the contract suites and fixtures that only tests import. */
export const TEST_FILE = /(\.test|\.contract|\.fixture)\.tsx?$|\/(testing|fixtures)\//;

const ROLE_ROOMS = 'dispatcher|jobmaster|resourcemanager|taskmanager|checkpoint|rest|client';
export const PORT_FILE = new RegExp(`^src/(${ROLE_ROOMS})/(.*/)?(ports?|[^/]+-ports?|[^/]+-store)\\.ts$`);
