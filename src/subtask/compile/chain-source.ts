import { unreachable } from '../../kernel/assert.ts';
import type { ChainNode } from '../chain.ts';

/**
 * The text of one chain's code. Names in it: `f3` the function of node 3, `o3_0` its first output,
 * `q3` what flatMap 3 holds, `v3` the result of node 3.
 *
 * Records go through nested statements of one function, without a call between operators. A flatMap
 * begins a new function, because its elements come from two loops (an array, any iterable) and from
 * two callers (the record at hand, a resumption). So does a node with several inputs, and a chain
 * that has become very long, which V8 would not optimise in one piece.
 */
export class ChainSource {
  private readonly functions: string[] = [];
  private readonly constants: string[] = [];
  /** Nodes and flatMaps that have functions of their own. */
  private readonly separate = new Set<number>();
  private readonly expanded = new Set<number>();
  private readonly inputs: readonly number[];
  private readonly flatMaps: readonly number[];
  private readonly writers: readonly number[];
  /** Writes that can only be asked through `shouldPause`: then it is asked for every element. */
  private readonly tickMax: number;

  constructor(
    private readonly nodes: readonly ChainNode[],
    private readonly name: string,
    private readonly opaque: boolean,
  ) {
    this.inputs = nodes.map((_, i) => nodes.filter(({ chained }) => chained.includes(i)).length);
    this.flatMaps = indexesOf(nodes, ({ step }) => step.kind === 'flatMap');
    this.writers = indexesOf(nodes, ({ step }) => step.kind === 'write' && step.writer !== undefined);
    this.tickMax = nodes.some(({ step }) => step.kind === 'write' && step.writer === undefined) ? 0 : TICKS_MAX;
  }

  toString(): string {
    for (const [i, node] of this.nodes.entries()) this.constantsOf(i, node);
    const head = this.node(0, 'record', 0);
    for (const i of [...this.flatMaps].reverse()) this.constants.push(`const q${i} = new HeldElements();`);
    const paused = this.flatMaps.map((i) => `q${i}.paused`).join(' || ') || 'false';
    return [
      `// chain of ${this.name}`,
      '"use strict";',
      'const { nodes, room, blocked, shouldPause, HeldElements, userError, writeError, asyncError, iteratorOf, own } = h;',
      'const { isArray } = Array;',
      'let tick = 0;',
      ...this.constants,
      ...this.functions,
      `function process(record) {\n${head}\n}`,
      'function processRange(records, from, to) {',
      'for (let i = from; i < to;) {',
      'const record = records[i++];',
      head,
      ...this.stopOfRange(),
      '}',
      'return to;',
      '}',
      'class Collector {',
      'constructor() { this.failure = undefined; }',
      'collect(record) {',
      `try {\n${head}\n} catch (error) { this.failure = error; throw error; }`,
      '}',
      '}',
      'function receiver(ends, time) {',
      'if (time !== undefined) return timedReceiver(ends, time);',
      'return (record) => {',
      `try {\n${head}\n} catch (error) { ends.failed(error); return; }`,
      ...this.fullBehind(),
      '};',
      '}',
      'function timedReceiver(ends, { element, input, from }) {',
      'return (record) => {',
      'element.input = input;',
      'element.timestampMs = from.timestampMs;',
      `try {\n${head}\n} catch (error) { ends.failed(error); return; }`,
      'element.timestampMs = NaN;',
      ...this.fullBehind(),
      '};',
      '}',
      'return {',
      'process, processRange, receiver, keepsRecords: false, collector: new Collector(),',
      `get paused() { return ${paused}; },`,
      `resume() {${[...this.flatMaps]
        .reverse()
        .map((i) => ` if (q${i}.paused && !resume${i}()) return;`)
        .join('')} },`,
      `close() {${this.flatMaps.map((i) => ` q${i}.close();`).join('')} },`,
      '};',
    ].join('\n');
  }

  private constantsOf(i: number, { step, outputs }: ChainNode): void {
    const { constants } = this;
    for (let o = 0; o < outputs.length; o++) {
      constants.push(`const o${i}_${o} = nodes[${i}].outputs[${o}];`);
      if (outputs[o]?.line !== undefined) constants.push(`const d${i}_${o} = o${i}_${o}.line;`);
    }
    switch (step.kind) {
      case 'source':
        return;
      case 'map':
      case 'filter':
      case 'flatMap':
        constants.push(`const f${i} = nodes[${i}].step.fn;`);
        return;
      case 'reduce':
        if (step.keyed === undefined) constants.push(`const f${i} = nodes[${i}].step.apply;`);
        else
          constants.push(
            `const { keySelector: k${i}, fn: f${i}, backend: b${i}, state: s${i}, sums: a${i} } = nodes[${i}].step.keyed();`,
            ...(step.sumOf === undefined
              ? []
              : [`const c${i} = a${i} === undefined ? { usable: false } : a${i}.cells;`]),
          );
        return;
      case 'window':
        constants.push(`const w${i} = nodes[${i}].step.window, k${i} = w${i}.keySelector, e${i} = w${i}.element;`);
        return;
      case 'stamp':
        constants.push(`const m${i} = nodes[${i}].step.stamp, f${i} = m${i}.assign, e${i} = m${i}.element;`);
        return;
      case 'write':
        if (step.writer === undefined) constants.push(`const f${i} = nodes[${i}].step.write;`);
        else constants.push(`const w${i} = nodes[${i}].step.writer();`);
        return;
      default:
        unreachable(step);
    }
  }

  /** Statements that take the value named `input` through node `i` and all that follows. */
  private node(i: number, input: string, depth: number): string {
    if (depth < DEPTH_MAX && (this.inputs[i] ?? 0) < 2) return this.inline(i, input, depth);
    if (!this.separate.has(i)) {
      this.separate.add(i);
      this.functions.push(`function node${i}(record) {\n${this.inline(i, 'record', 0)}\n}`);
    }
    return `node${i}(${input});`;
  }

  private inline(i: number, input: string, depth: number): string {
    const { step } = this.nodes[i] as ChainNode;
    const v = `v${i}`;
    switch (step.kind) {
      case 'source':
        return this.followers(i, input, depth);
      case 'map':
        return [`let ${v};`, guarded(`${v} = f${i}(${input});`, i, input), refusePromise(v, i, input)]
          .concat(this.followers(i, v, depth))
          .join('\n');
      case 'filter':
        return [
          `let ${v};`,
          guarded(`${v} = f${i}(${input});`, i, input),
          refusePromise(v, i, input),
          `if (${v}) {`,
          this.followers(i, input, depth),
          '}',
        ].join('\n');
      case 'reduce': {
        if (step.keyed === undefined) return `const ${v} = f${i}(${input});\n${this.followers(i, v, depth)}`;
        const general = [
          `b${i}.setCurrentKey(key);`,
          `const current = s${i}.value();`,
          `${v} = current === undefined ? ${input} : f${i}(current, ${input});`,
          // The function may change what the state holds, but the record belongs to whoever emitted it.
          `if (${v} === ${input} && typeof ${v} === "object") ${v} = own(${v});`,
          `s${i}.update(${v});`,
        ];
        const apply = [
          `let key = k${i}(${input});`,
          ...(step.sumOf === undefined ? general : sumInPlace(i, { input, result: v, field: step.sumOf, general })),
        ];
        return [`let ${v};`, guarded(apply.join(' '), i, input), this.followers(i, v, depth)].join('\n');
      }
      case 'window':
        return intoWindow(i, input, step.window.sumOf);
      case 'stamp': {
        const before = `t${i}`;
        const assign =
          step.stamp.assign === undefined
            ? ''
            : guarded(`${v} = f${i}(${input}, ${before} === ${before} ? ${before} : undefined);`, i, input);
        return [
          `const ${before} = e${i}.timestampMs;`,
          `let ${v} = ${before};`,
          assign,
          `e${i}.timestampMs = m${i}.saw(${v}, ${input});`,
          this.followers(i, input, depth),
          `e${i}.timestampMs = ${before};`,
        ].join('\n');
      }
      case 'write':
        if (step.writer === undefined) return `f${i}(${input});`;
        return `try { w${i}.write(${input}); } catch (error) { throw writeError(${i}, error, ${input}); }`;
      case 'flatMap':
        this.flatMap(i);
        return `if (q${i}.paused) q${i}.keep(${input}); else run${i}(${input});`;
      default:
        return unreachable(step);
    }
  }

  private followers(i: number, value: string, depth: number): string {
    const { chained, outputs } = this.nodes[i] as ChainNode;
    return [
      // Braces: two followers may declare the same names.
      ...chained.map((follower) => `{ ${this.node(follower, value, depth + 1)} }`),
      ...outputs.map((output, o) => {
        const emit = `o${i}_${o}.emit(${value});`;
        if (output.line === undefined) return emit;
        return `if (d${i}_${o}.credit !== 0) { d${i}_${o}.credit--; d${i}_${o}.receive(${value}); } else ${emit}`;
      }),
    ].join('\n');
  }

  private flatMap(i: number): void {
    if (this.expanded.has(i)) return;
    this.expanded.add(i);
    const wanted = this.pauseWanted(this.below(i));
    const element = this.followers(i, 'element', 0);
    this.functions.push(
      // By index: several times as fast as the iterator, and nearly every flatMap returns an array.
      `function scan${i}(record, results, from) {
for (let i = from; i < results.length;) {
const element = results[i++];
${element}
if (${wanted} && i < results.length) { q${i}.holdArray(record, results, i); return false; }
}
return true;
}`,
      `function iterate${i}(record, iterator) {
for (;;) {
let step;
${guarded('step = iterator.next();', i, 'record')}
if (step.done === true) return true;
const element = step.value;
${element}
if (${wanted}) { q${i}.holdIterator(record, iterator); return false; }
}
}`,
      `function run${i}(record) {
let results;
${guarded(`results = f${i}(record);`, i, 'record')}
return isArray(results) ? scan${i}(record, results, 0) : iterate${i}(record, iteratorOf(${i}, results, record));
}`,
      `function resume${i}() {
const { record, results, iterator, next } = q${i};
q${i}.release();
let done = true;
if (results !== undefined) done = scan${i}(record, results, next);
else if (iterator !== undefined) done = iterate${i}(record, iterator);
while (done && q${i}.waiting.length > 0) {
done = run${i}(q${i}.waiting.shift());
if (done && q${i}.waiting.length > 0 && (${wanted})) break;
}
q${i}.settle();
return !q${i}.paused;
}`,
    );
  }

  /** A range is short, and its caller looks at the clock: only what one record may have filled is looked at. */
  private stopOfRange(): readonly string[] {
    const conditions =
      this.tickMax === 0 || this.opaque ? [this.pauseWanted(this.flatMaps)] : this.blocked(this.flatMaps);
    return conditions.length === 0 ? [] : [`if (${conditions.join(' || ')}) return i;`];
  }

  /** As above, for a caller that passes one record. Not by the clock, which is the caller's. */
  private fullBehind(): readonly string[] {
    const conditions = this.tickMax === 0 ? [...this.blocked(this.flatMaps), 'blocked()'] : this.blocked(this.flatMaps);
    return conditions.length === 0 ? [] : [`if (${conditions.join(' || ')}) ends.full();`];
  }

  /**
   * Whether to stop after an element. Full outputs and paused flatMaps further on are looked at every
   * time; the rest (the clock) every few elements, and again each time until the answer was heeded.
   */
  private pauseWanted(flatMaps: readonly number[]): string {
    const later = `(++tick > ${this.tickMax} && (shouldPause(tick) || (tick = 0) !== 0))`;
    return `(${[...this.blocked(flatMaps), later].join(' || ')})`;
  }

  private blocked(flatMaps: readonly number[]): readonly string[] {
    return [
      ...(this.nodes.some(({ outputs }) => outputs.length > 0) ? ['room.full !== 0'] : []),
      ...flatMaps.map((i) => `q${i}.paused`),
      ...this.writers.map((i) => `w${i}.ready() !== undefined`),
    ];
  }

  /** The flatMaps that elements of flatMap `i` can reach. */
  private below(i: number): readonly number[] {
    const reached = new Set<number>();
    const visit = (at: number) => {
      for (const follower of (this.nodes[at] as ChainNode).chained) {
        if (reached.has(follower)) continue;
        reached.add(follower);
        visit(follower);
      }
    };
    visit(i);
    return this.flatMaps.filter((flatMap) => reached.has(flatMap));
  }
}

const TICKS_MAX = 15;
/** Operators nested in one function. */
const DEPTH_MAX = 24;

/**
 * A sum whose state holds it as a number is changed there, and a record is made for those downstream alone.
 * Everything else, also whatever is going to fail, goes the general way.
 */
function sumInPlace(
  i: number,
  spec: {
    readonly input: string;
    readonly result: string;
    readonly field: string | number;
    readonly general: readonly string[];
  },
): readonly string[] {
  const { input, result, field, general } = spec;
  return [
    'let sum;',
    `if (c${i}.usable) {`,
    `const amount = ${input}?.[${JSON.stringify(field)}];`,
    'if (typeof amount === "number") {',
    'if (typeof key === "string") {',
    `sum = c${i}.add(key, amount);`,
    `if (sum === undefined && c${i}.begin(key, ${input})) sum = amount;`,
    '} else if (typeof key === "number") {',
    // -0 is the same key as 0, and the state knows it as 0.
    `key += 0; sum = c${i}.add(key, amount);`,
    `if (sum === undefined && c${i}.begin(key, ${input})) sum = amount;`,
    '}',
    '}',
    '}',
    `if (sum !== undefined) ${result} = ${unpacked(i, field)};`,
    `else { ${general.join(' ')} if (c${i}.usable) c${i}.pack(); }`,
  ];
}

/** A record of the window that the one before was in, whose sum is held as a number, goes there without a call. */
function intoWindow(i: number, input: string, sumOf: string | number | undefined): string {
  const add = [
    `const key = k${i}(${input});`,
    ...(sumOf === undefined
      ? [`w${i}.add(${input}, key);`]
      : [
          'let sum;',
          `const sums = w${i}.sums;`,
          'if (sums !== undefined && sums.usable) {',
          `const amount = ${input}?.[${JSON.stringify(sumOf)}];`,
          'if (typeof amount === "number") {',
          'if (typeof key === "string") sum = sums.add(key, amount);',
          'else if (typeof key === "number") sum = sums.add(key + 0, amount);',
          '}',
          '}',
          `if (sum === undefined) w${i}.add(${input}, key);`,
        ]),
  ];
  return [
    `const at${i} = e${i}.timestampMs;`,
    `if ((at${i} >= w${i}.startMs && at${i} < w${i}.endMs) || w${i}.locate(${input})) {`,
    guarded(add.join(' '), i, input),
    '}',
  ].join('\n');
}

/** What is packed of a tuple can only be a pair. */
function unpacked(i: number, field: string | number): string {
  if (field === 0) return '[sum, key]';
  if (field === 1) return '[key, sum]';
  return `c${i}.unpack(key, sum)`;
}

function guarded(statements: string, i: number, input: string): string {
  return `try { ${statements} } catch (error) { throw userError(${i}, error, ${input}); }`;
}

/** The test by `typeof` comes first because it costs nothing once V8 knows the type of the result. */
function refusePromise(value: string, i: number, input: string): string {
  return `if (typeof ${value} === "object" && ${value} instanceof Promise) throw asyncError(${i}, ${value}, ${input});`;
}

function indexesOf(nodes: readonly ChainNode[], holds: (node: ChainNode) => boolean): readonly number[] {
  return nodes.flatMap((node, i) => (holds(node) ? [i] : []));
}
