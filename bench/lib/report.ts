import { type BenchResult, holds } from './benchmark.ts';

/** What people read. */
export function table(results: readonly BenchResult[]): string {
  const rows = results.map((result) => [
    result.name,
    `${format(result.value)} ${result.unit}`,
    targetText(result),
    verdict(result),
    result.against ?? '',
  ]);
  const all = [['', 'value', 'target', '', 'against'], ...rows];
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0))) ?? [];
  return all
    .map((row) =>
      row
        .map((cell, column) =>
          column === 1 || column === 2 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** A result as machines read it. */
export interface ResultLine {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly target?: number;
  readonly better?: 'higher' | 'lower';
  readonly holds?: boolean | undefined;
}

export function resultLine(result: BenchResult): ResultLine {
  const { name, value, unit, target } = result;
  if (target === undefined) return { name, value, unit };
  return 'atLeast' in target
    ? { name, value, unit, target: target.atLeast, better: 'higher', holds: holds(result) }
    : { name, value, unit, target: target.atMost, better: 'lower', holds: holds(result) };
}

/** What machines read: one line. */
export function jsonLine(bench: string, results: readonly ResultLine[]): string {
  return JSON.stringify({ bench, results });
}

function targetText({ target }: BenchResult): string {
  if (target === undefined) return '';
  return 'atLeast' in target ? `>= ${target.atLeast}` : `<= ${target.atMost}`;
}

function verdict(result: BenchResult): string {
  const held = holds(result);
  return held === undefined ? '' : held ? 'holds' : 'MISSED';
}

function format(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2);
}
