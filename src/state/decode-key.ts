import { assert } from '../kernel/assert.ts';
import type { CanonicalKey } from './key-group-hash.ts';

/** The key that `canonicalKey` was given, or one equal to it by value. */
export function decodeCanonicalKey(key: CanonicalKey): unknown {
  if (typeof key !== 'string' || key.charCodeAt(0) !== 0) return key;
  // NUL `s`: a string of the user that begins with NUL itself.
  return key[1] === 's' ? key.slice(2) : new CompositeReader(key).read();
}

/** Reads the form that `canonicalKey` gives arrays and objects. */
class CompositeReader {
  private at = 1;

  constructor(private readonly text: string) {}

  read(): unknown {
    switch (this.text[this.at++]) {
      case 's':
        return this.counted();
      case 'n':
        return Number(this.until(';'));
      case 'i':
        return BigInt(this.until(';'));
      case 't':
        return true;
      case 'f':
        return false;
      case '[': {
        const items: unknown[] = [];
        while (this.text[this.at] !== ']') items.push(this.read());
        this.at++;
        return items;
      }
      case '{': {
        const fields: [string, unknown][] = [];
        while (this.text[this.at] !== '}') fields.push([this.counted(), this.read()]);
        this.at++;
        return Object.fromEntries(fields);
      }
      default:
        throw new Error('a composite key is in the form that canonicalKey gives it');
    }
  }

  private counted(): string {
    const length = Number(this.until(':'));
    this.at += length;
    return this.text.slice(this.at - length, this.at);
  }

  private until(end: string): string {
    const start = this.at;
    const found = this.text.indexOf(end, start);
    assert(found >= 0, 'a composite key is in the form that canonicalKey gives it');
    this.at = found + 1;
    return this.text.slice(start, found);
  }
}
