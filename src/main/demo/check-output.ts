import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * The judge of the demonstration. It shares no code with the engine: plain files, a plain loop.
 *
 * The job emits `word count` for every word it meets, with the count so far. So with exactly-once
 * output each word that occurs n times must stand there with 1, 2, …, n, each once: a lost record
 * leaves a gap or a small maximum, a repeated one a double. That is stronger than comparing totals.
 */
export interface Verdict {
  readonly pass: boolean;
  readonly words: number;
  readonly distinct: number;
  readonly committedLines: number;
  /** The first few differences, for people. */
  readonly problems: readonly string[];
}

export function checkOutput(inputFolder: string, outputFolder: string): Verdict {
  const expected = countWords(inputFolder);
  const seen = new Map<string, number[]>();
  let committedLines = 0;
  for (const file of committedFiles(outputFolder)) {
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      if (line === '') continue;
      committedLines++;
      const [word = '', count] = line.split(' ');
      const counts = seen.get(word);
      if (counts === undefined) seen.set(word, [Number(count)]);
      else counts.push(Number(count));
    }
  }
  const problems: string[] = [];
  for (const [word, n] of expected) {
    const counts = (seen.get(word) ?? []).sort((a, b) => a - b);
    if (counts.length !== n || counts.some((count, i) => count !== i + 1)) {
      problems.push(`"${word}" occurs ${n} times, the output holds ${counts.length} lines up to ${counts.at(-1) ?? 0}`);
    }
  }
  for (const word of seen.keys()) if (!expected.has(word)) problems.push(`"${word}" is not in the input`);
  let words = 0;
  for (const n of expected.values()) words += n;
  return {
    pass: problems.length === 0,
    words,
    distinct: expected.size,
    committedLines,
    problems: problems.slice(0, 5),
  };
}

/** How many words the input holds: what the output must have lines. */
export function totalWords(inputFolder: string): number {
  let words = 0;
  for (const n of countWords(inputFolder).values()) words += n;
  return words;
}

/** Counts the lines committed so far; committed files never change, so each is read once. */
export class CommittedLines {
  private readonly counted = new Map<string, number>();

  constructor(private readonly folder: string) {}

  count(): number {
    let lines = 0;
    for (const file of committedFiles(this.folder)) {
      let inFile = this.counted.get(file);
      if (inFile === undefined) {
        inFile = readFileSync(file).reduce((sum, byte) => sum + (byte === 10 ? 1 : 0), 0);
        this.counted.set(file, inFile);
      }
      lines += inFile;
    }
    return lines;
  }
}

function countWords(folder: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of readdirSync(folder)) {
    for (const word of readFileSync(join(folder, name), 'utf8').toLowerCase().split(/\W+/)) {
      if (word !== '') counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return counts;
}

/** Files whose names begin with a dot or an underscore are not committed. */
function committedFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/^[._]/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
}
