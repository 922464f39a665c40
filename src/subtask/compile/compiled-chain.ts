import { copyRecord } from '../../exchange/record-copies.ts';
import type { Chain, ChainFactory, ChainNode, ChainSpec } from '../chain.ts';
import { asyncFunctionError, recordError, userCodeError } from '../operator-error.ts';
import { iterableResults } from '../pausable-flat-map.ts';
import { pushChainFactory } from '../push-chain.ts';
import { ChainSource } from './chain-source.ts';
import { allowsCodeGeneration } from './code-generation.ts';
import { HeldElements } from './held-elements.ts';

export interface ChainOptions {
  /** `false`: records are pushed through the interpreter. */
  readonly compiled: boolean;
}

/** How a slot runs its chains. */
export function chainFactory({ compiled }: ChainOptions): ChainFactory {
  return compiled ? compiledChainFactory : pushChainFactory;
}

/**
 * Makes one function of a whole chain. Its code is generated for each chain and never shared: what V8
 * has learnt from the records of one job cannot slow another one down. Where code may not be
 * generated, the interpreter does the work; it gives the same results.
 */
export const compiledChainFactory: ChainFactory = {
  create: (spec) => (allowsCodeGeneration() ? compile(spec) : pushChainFactory.create(spec)),
};

type Compiled = (helpers: Helpers) => Chain;

interface Helpers {
  readonly nodes: readonly ChainNode[];
  readonly room: { readonly full: number };
  readonly blocked: () => boolean;
  readonly shouldPause: (elements?: number) => boolean;
  readonly HeldElements: typeof HeldElements;
  readonly userError: (node: number, error: unknown, record: unknown) => Error;
  readonly writeError: (node: number, error: unknown, record: unknown) => Error;
  readonly asyncError: (node: number, promise: Promise<unknown>, record: unknown) => Error;
  /** A copy that is nobody else's. */
  readonly own: (record: unknown) => unknown;
  readonly iteratorOf: (node: number, results: unknown, record: unknown) => Iterator<unknown>;
}

const ALWAYS_ROOM = { full: 0 };

/** V8 keeps the code of equal texts, and with it what it has learnt: no two texts may be equal. */
let compiled = 0;

function compile({ nodes, room = ALWAYS_ROOM, shouldPause, blocked = () => false, opaque = false }: ChainSpec): Chain {
  const site = (i: number) => (nodes[i] as ChainNode).site;
  const text = new ChainSource(nodes, `number ${compiled++}`, opaque).toString();
  const create = new Function('h', text) as Compiled;
  return create({
    nodes,
    room,
    blocked,
    shouldPause,
    own: copyRecord,
    HeldElements,
    userError: (i, error, record) => userCodeError(site(i), error, record),
    writeError: (i, error, record) => recordError(site(i), 'to write', error, record),
    asyncError: (i, promise, record) => asyncFunctionError(site(i), promise, record),
    iteratorOf: (i, results, record) => iterableResults(site(i), results, record)[Symbol.iterator](),
  });
}
