import { InvalidArgumentError } from '../kernel/errors.ts';
import { checkFunction } from './arguments.ts';
import { type DataStream, KeyedStream, SingleOutputStreamOperator, type StreamHost } from './data-stream.ts';
import type { Key, KeySelector } from './functions.ts';
import { checkProcessFunction, type KeyedCoProcessFunction } from './process-function.ts';
import { type StreamInput, StreamOperator } from './stream-operator.ts';

/** Two streams, of any types, that one operator reads. */
export class ConnectedStreams<A, B> {
  constructor(
    private readonly first: DataStream<A>,
    private readonly second: DataStream<B>,
  ) {}

  /** Records of one key, of either stream, meet in one subtask. Both selectors must give the same kind of key. */
  keyBy<const K extends Key>(first: KeySelector<A, K>, second: KeySelector<B, K>): KeyedConnectedStreams<A, B, K> {
    checkFunction('keyBy()', first);
    checkFunction('keyBy()', second);
    return new KeyedConnectedStreams(this.first.keyBy(first), this.second.keyBy(second));
  }

  /** For two streams that are keyed already. */
  process<K extends Key, O>(
    fn: KeyedCoProcessFunction<K, A, B, O> | (() => KeyedCoProcessFunction<K, A, B, O>),
  ): SingleOutputStreamOperator<O> {
    if (!(this.first instanceof KeyedStream) || !(this.second instanceof KeyedStream)) {
      throw new InvalidArgumentError('connect().process() needs keyed streams', {
        hint: 'Call keyBy(first, second) on the connected streams.',
      });
    }
    const first = this.first as KeyedStream<A, K>;
    return new KeyedConnectedStreams<A, B, K>(first, this.second as KeyedStream<B, K>).process(fn);
  }
}

export class KeyedConnectedStreams<A, B, K extends Key> {
  constructor(
    private readonly first: KeyedStream<A, K>,
    private readonly second: KeyedStream<B, K>,
  ) {}

  /** Handles both streams with state and timers that they share by key. */
  process<O>(
    fn: KeyedCoProcessFunction<K, A, B, O> | (() => KeyedCoProcessFunction<K, A, B, O>),
  ): SingleOutputStreamOperator<O> {
    const create = checkProcessFunction('process()', fn, ['processElement1', 'processElement2']);
    const first = readings(this.first);
    const second = readings(this.second);
    const { host } = first;
    if (second.host !== host) throw new InvalidArgumentError('connect() needs streams of the same environment');
    const operator = new StreamOperator(
      host,
      {
        kind: 'coProcess',
        keySelectors: [this.first.keySelector as KeySelector<unknown>, this.second.keySelector as KeySelector<unknown>],
        create: create as () => KeyedCoProcessFunction<unknown, unknown, unknown, unknown>,
      },
      [
        ...first.inputs.map((input) => ({ ...input, inputIndex: 0 })),
        ...second.inputs.map((input) => ({ ...input, inputIndex: 1 })),
      ],
      { name: 'Co-Keyed-Process', parallelism: host.parallelism },
    );
    host.addOperator(operator);
    return new SingleOutputStreamOperator<O>(host, operator);
  }
}

/** What a stream is made of, for those of this room that join streams. */
function readings<T>(stream: DataStream<T>): { readonly host: StreamHost; readonly inputs: readonly StreamInput[] } {
  return stream.readings();
}
