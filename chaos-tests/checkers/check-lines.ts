/** Compares two multisets of lines: what was written with what a run without faults writes. */
export function compareLines(expected: readonly string[], found: readonly string[]): string[] {
  const balance = new Map<string, number>();
  for (const line of expected) balance.set(line, (balance.get(line) ?? 0) + 1);
  for (const line of found) balance.set(line, (balance.get(line) ?? 0) - 1);
  const lost = [...balance].filter(([, count]) => count > 0);
  const extra = [...balance].filter(([, count]) => count < 0);
  const known = new Set(expected);
  const repeated = extra.filter(([line]) => known.has(line));
  const wrong = extra.filter(([line]) => !known.has(line));
  return [...said('lost', lost), ...said('written more than once', repeated), ...said('never to be written', wrong)];
}

function said(what: string, lines: readonly (readonly [string, number])[]): string[] {
  if (lines.length === 0) return [];
  const examples = lines.slice(0, 3).map(([line]) => JSON.stringify(line.slice(0, 80)));
  return [`output: ${lines.length} lines ${what}, of ${examples.join(', ')}${lines.length > 3 ? ', …' : ''}`];
}
