/** Of a job's name in a record; the whole name is in the graph and in the details. */
export const NAME_BYTES_MAX = 800;

/** At most `bytesMax` bytes when written as JSON text, cut between characters; what was cut is said by `…`. */
export function truncateText(text: string, bytesMax: number): string {
  if (jsonBytes(text) <= bytesMax) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (jsonBytes(`${text.slice(0, middle)}…`) <= bytesMax) low = middle;
    else high = middle - 1;
  }
  // Never half of a surrogate pair: it would not survive the way through UTF-8.
  const last = text.charCodeAt(low - 1);
  return `${text.slice(0, last >= 0xd800 && last <= 0xdbff ? low - 1 : low)}…`;
}

function jsonBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text));
}
