import { SeededNumbers } from './seeded.ts';

export interface WordCount {
  readonly word: string;
  readonly count: number;
}

/** The bid of the Nexmark benchmark. */
export interface Bid {
  readonly auction: number;
  readonly bidder: number;
  readonly price: number;
  readonly channel: string;
  readonly url: string;
  readonly dateTime: number;
  readonly extra: string;
}

/** `size` different words of 2 to 11 letters. */
export function vocabulary(size: number, seed = 7): readonly string[] {
  const numbers = new SeededNumbers(seed);
  const words = new Set<string>();
  while (words.size < size) {
    let word = '';
    for (let length = 2 + numbers.below(10); length > 0; length--) word += LETTERS[numbers.skewedBelow(LETTERS.length)];
    words.add(word);
  }
  return JSON.parse(JSON.stringify([...words])) as readonly string[];
}

const LETTERS = 'etaoinshrdlcumwfgypbvkjxqz';

export function wordCounts(records: number, seed = 1): readonly WordCount[] {
  const numbers = new SeededNumbers(seed);
  const words = vocabulary(5_000);
  return Array.from({ length: records }, () => ({
    word: words[numbers.skewedBelow(words.length)] as string,
    count: 1 + numbers.skewedBelow(100),
  }));
}

const CHANNELS = ['Apple', 'Google', 'Facebook', 'Baidu'];

/** With Nexmark's proportions: half of the bids come by one of four channels, the other half by one of 10,000. */
export function bids(records: number, seed = 1): readonly Bid[] {
  // As from a parser: strings still in the pieces of their templates would be put together by whoever reads them first.
  return JSON.parse(JSON.stringify(createBids(records, seed))) as readonly Bid[];
}

function createBids(records: number, seed: number): readonly Bid[] {
  const numbers = new SeededNumbers(seed);
  const words = vocabulary(5_000);
  const word = () => words[numbers.below(words.length)] as string;
  return Array.from({ length: records }, (_, i) => {
    const hot = numbers.below(2) === 0;
    const channel = hot ? (CHANNELS[numbers.below(4)] as string) : `channel-${numbers.below(10_000)}`;
    const path = `https://www.nexmark.com/${word()}/${word()}/${word()}/item.htm?query=1`;
    return {
      auction: 1_000 + numbers.below(100_000),
      bidder: 1_000 + numbers.below(50_000),
      price: 100 + numbers.skewedBelow(10_000_000),
      channel,
      url: hot ? path : `${path}&channel_id=${numbers.below(1_000_000_000)}`,
      dateTime: 1_700_000_000_000 + i * 10,
      extra: `${word()} ${word()} ${word()}`,
    };
  });
}
