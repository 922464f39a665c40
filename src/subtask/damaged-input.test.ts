import { afterEach, expect, test } from 'vitest';
import { until } from '../../test-support/until.ts';
import type { RecordCodec } from '../exchange/record-codec.ts';
import { recordCodec } from '../exchange/record-codecs.ts';
import { ThreadNeighbours } from '../exchange/port-transport.ts';
import { rangeSource, Valve } from './testing/range-source.ts';
import { GatedSink } from './testing/gated-sink.ts';
import { SlotCluster } from './testing/slot-cluster.ts';

let slots: SlotCluster;
afterEach(() => slots.close());

const columnar = recordCodec('columnar');

/** Writes good batches, and from the fourth on cuts their ends off. */
const cutting: RecordCodec = {
  ...columnar,
  createEncoder: () => {
    const encoder = columnar.createEncoder();
    let batches = 0;
    return {
      append: (record) => encoder.append(record),
      get records() {
        return encoder.records;
      },
      get bytes() {
        return encoder.bytes;
      },
      finish: () => {
        const payload = encoder.finish();
        return ++batches < 4 ? payload : payload.slice(0, payload.length - 8);
      },
    };
  },
};

test.each([
  ['over ports', {}],
  // Each its own neighbour: there is nobody else in its process.
  ['over TCP', { neighbours: new ThreadNeighbours() }],
])(
  '%s a batch that cannot be decoded fails its task, which names itself, the channel and the damage',
  async (_, deps) => {
    slots = new SlotCluster();
    const sink = new GatedSink<unknown>();
    await slots.addSlots(1, {}, { ...deps, codec: cutting });
    await slots.addSlots(1, {}, 'neighbours' in deps ? { neighbours: new ThreadNeighbours() } : {});
    const program = await slots.program((env) => {
      env.setBufferTimeout(1);
      env
        .fromSource(rangeSource([10_000], new Valve(), { endless: true }))
        .setParallelism(1)
        .rebalance()
        .sinkTo(sink.sink('Reader'))
        .setParallelism(2);
    });
    await slots.deploy(program);
    const [, sinks] = program.graph.vertices;
    const reader = await until('the reader to end', () =>
      slots
        .reports()
        .find((task) => task.vertexId === sinks?.id && task.subtaskIndex === 1 && task.error !== undefined),
    );
    expect(reader).toMatchObject({ state: 'FAILED', error: { code: 'CORRUPT' } });
    const message = reader.error?.message ?? '';
    expect(message).toMatch(/Reader \(2\/2\): producer subtask 0 of edge \S+ at 127\.0\.0\.1:\d+ sent a batch/);
    expect(message).toContain('damaged: a batch of records ends too early');
    expect(message).toContain(`of edge ${program.graph.edges[0]?.id}`);
    slots.cancelAll();
  },
);
