import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { printSink } from './print-sink.ts';
import { readerContext } from './testing/run-reader.ts';

/** A reader of the output that can be made to stall. */
class Terminal extends Writable {
  text = '';
  private stalled: (() => void) | undefined;

  constructor(private readonly stall = false) {
    super({ highWaterMark: 64, decodeStrings: false });
  }

  override _write(chunk: string | Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    if (this.stall) this.stalled = done;
    else done();
  }

  resume(): void {
    const done = this.stalled;
    this.stalled = undefined;
    done?.();
  }
}

test('one subtask prints bare lines; several print their number from 1', async () => {
  const terminal = new Terminal();
  const sink = printSink<unknown>({ stream: terminal });
  const single = sink.createWriter(readerContext());
  const second = sink.createWriter(readerContext({ subtaskIndex: 1, parallelism: 2 }));
  const named = printSink<unknown>({ stream: terminal, identifier: 'words' }).createWriter(readerContext());
  const namedSecond = printSink<unknown>({ stream: terminal, identifier: 'words' }).createWriter(
    readerContext({ subtaskIndex: 1, parallelism: 2 }),
  );
  for (const writer of [single, second, named, namedSecond]) {
    await writer.open();
    writer.write('hello');
    await writer.flush();
    await writer.close();
  }
  expect(terminal.text).toBe('hello\n2> hello\nwords> hello\nwords:2> hello\n');
});

test('records that are not strings are printed readably on one line each', async () => {
  const terminal = new Terminal();
  const writer = printSink<unknown>({ stream: terminal }).createWriter(readerContext());
  await writer.open();
  for (const value of [['hello', 1], { word: 'a', n: 2n, at: new Map([['k', -0]]) }, undefined, 1.5])
    writer.write(value);
  await writer.flush();
  await writer.close();
  expect(terminal.text.split('\n')).toEqual([
    "[ 'hello', 1 ]",
    "{ word: 'a', n: 2n, at: Map(1) { 'k' => -0 } }",
    'undefined',
    '1.5',
    '',
  ]);
});

test('lines appear without a flush, once the present slice of work is over', async () => {
  const terminal = new Terminal();
  const writer = printSink<string>({ stream: terminal }).createWriter(readerContext());
  await writer.open();
  writer.write('a');
  writer.write('b');
  expect(terminal.text).toBe('');
  await new Promise((resolve) => setImmediate(resolve));
  expect(terminal.text).toBe('a\nb\n');
  await writer.close();
});

test('a reader that does not read holds the writer back until it reads again', async () => {
  const terminal = new Terminal(true);
  const writer = printSink<string>({ stream: terminal }).createWriter(readerContext());
  await writer.open();
  expect(writer.ready()).toBeUndefined();
  writer.write('x'.repeat(20_000));
  const ready = writer.ready();
  expect(ready).toBeInstanceOf(Promise);
  terminal.resume();
  await ready;
  expect(writer.ready()).toBeUndefined();
  await writer.close();
});

test('when the output is gone, writing and flushing fail with a reason and nothing crashes', async () => {
  const terminal = new Terminal();
  const writer = printSink<string>({ stream: terminal }).createWriter(readerContext());
  await writer.open();
  terminal.destroy(new Error('EPIPE'));
  await new Promise((resolve) => terminal.once('close', resolve));
  expect(() => writer.write('a')).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
  await expect(writer.flush()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await writer.close();
});

test('many printing subtasks add one set of listeners to the stream, and take it away again', async () => {
  const terminal = new Terminal();
  const writers = Array.from({ length: 30 }, () =>
    printSink<string>({ stream: terminal }).createWriter(readerContext()),
  );
  for (const writer of writers) await writer.open();
  expect(terminal.listenerCount('drain')).toBe(1);
  for (const writer of writers) await writer.close();
  expect(terminal.listenerCount('drain') + terminal.listenerCount('error')).toBe(0);
});
