import { execFile } from 'node:child_process';

export interface SyntaxErrorPlace {
  readonly line: number;
  readonly source: string;
}

const CHECK_TIMEOUT_MS = 5_000;
const SOURCE_CHARS_MAX = 120;

/**
 * Where a module's syntax error is. `import()` rejects without saying so; only the runtime's own check
 * prints it. The check parses and runs nothing. Undefined when it does not tell: then the message alone
 * has to do.
 */
export function locateSyntaxError(path: string): Promise<SyntaxErrorPlace | undefined> {
  return new Promise((resolve) => {
    const options = { timeout: CHECK_TIMEOUT_MS, maxBuffer: 1024 * 1024, env: {} };
    execFile(process.execPath, ['--check', path], options, (_error, _stdout, stderr) => {
      const [first = '', second = ''] = stderr.split('\n');
      const [, line] = /:(\d+)$/.exec(first.trim()) ?? [];
      resolve(
        line === undefined ? undefined : { line: Number(line), source: second.trim().slice(0, SOURCE_CHARS_MAX) },
      );
    });
  });
}
