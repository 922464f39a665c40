/**
 * A stream of sensor readings with alerts: a sensor that stays hot for ten seconds raises one, a sensor
 * that falls silent for a minute another. Both are timers in the readings' own time, so a replay of the
 * same readings raises the same alerts, however fast it is.
 *
 *     npx millrace run examples/sensor-alerts.ts     on a cluster
 *     node dist/examples/sensor-alerts.js            in this process, without any cluster
 */
import {
  type Collector,
  dataGen,
  type KeyedContext,
  KeyedProcessFunction,
  type OnTimerContext,
  StreamExecutionEnvironment,
  WatermarkStrategy,
} from 'millrace';

interface Reading {
  readonly sensor: string;
  readonly timeMs: number;
  readonly celsius: number;
}

type Alert = 'hot' | 'silent';

const READINGS = 5_000;
const SENSORS = 8;
const HOT_CELSIUS = 80;
const AFTER_MS = { hot: 10_000, silent: 60_000 };
const START_MS = Date.UTC(2030, 0, 1);

/** Each sensor has its turn once a second and a hot spell every three minutes; the first two are silent at times. */
function reading(index: number, random: { next(): number; int(bound: number): number }): Reading | undefined {
  const sensor = index % SENSORS;
  const second = Math.floor(index / SENSORS);
  if (sensor < 2 && second % 300 > 200) return undefined;
  const hot = (second + 37 * sensor) % 180 < 15;
  return {
    sensor: `sensor-${sensor}`,
    // Up to two seconds late.
    timeMs: START_MS + second * 1_000 - random.int(2_000),
    celsius: Math.round((hot ? 90 : 40) + 10 * random.next()),
  };
}

class Alerts extends KeyedProcessFunction<string, Reading, string> {
  override processElement({ timeMs, celsius }: Reading, ctx: KeyedContext<string>): void {
    const hotAt = ctx.getState<number>({ name: 'hot' }).value() ?? 0;
    // An alert whose time has come stays, also when its timer has not fired yet.
    if (celsius >= HOT_CELSIUS && hotAt <= timeMs) this.arm('hot', timeMs, ctx);
    else if (celsius < HOT_CELSIUS && hotAt > timeMs) this.disarm('hot', hotAt, ctx);
    const silentAt = ctx.getState<number>({ name: 'silent' }).value() ?? 0;
    if (silentAt > timeMs) this.disarm('silent', silentAt, ctx);
    this.arm('silent', Math.max(timeMs, silentAt - AFTER_MS.silent), ctx);
  }

  override onTimer(timestampMs: number, ctx: OnTimerContext<string>, out: Collector<string>): void {
    const pending = this.pending(ctx);
    const { [timestampMs]: alerts = [], ...rest } = pending.value() as Record<string, Alert[]>;
    pending.update(rest);
    const at = new Date(timestampMs).toISOString().slice(11, 19);
    for (const alert of alerts) {
      out.collect(`${at} ${ctx.getCurrentKey()} has been ${alert} for ${AFTER_MS[alert] / 1_000} s`);
    }
  }

  private arm(alert: Alert, fromMs: number, ctx: KeyedContext<string>): void {
    const atMs = fromMs + AFTER_MS[alert];
    ctx.getState<number>({ name: alert }).update(atMs);
    ctx.timerService().registerEventTimeTimer(atMs);
    const pending = this.pending(ctx);
    const all = pending.value() as Record<string, Alert[]>;
    pending.update({ ...all, [atMs]: [...(all[atMs] ?? []), alert] });
  }

  private disarm(alert: Alert, atMs: number, ctx: KeyedContext<string>): void {
    ctx.getState<number>({ name: alert }).clear();
    const pending = this.pending(ctx);
    const { [atMs]: alerts = [], ...rest } = pending.value() as Record<string, Alert[]>;
    const others = alerts.filter((other) => other !== alert);
    pending.update(others.length === 0 ? rest : { ...rest, [atMs]: others });
    if (others.length === 0) ctx.timerService().deleteEventTimeTimer(atMs);
  }

  /** What each of the sensor's timers is for. */
  private pending(ctx: KeyedContext<string>) {
    return ctx.getState<Record<string, Alert[]>>({ name: 'pending', defaultValue: {} });
  }
}

const env = StreamExecutionEnvironment.getExecutionEnvironment();
env
  .fromSource(dataGen({ generator: reading, seed: 7, count: READINGS }), 'readings')
  .uid('readings')
  // One subtask reads them, so a sensor's readings are handled in the order in which they came.
  .setParallelism(1)
  .filter((value): value is Reading => value !== undefined)
  .setParallelism(1)
  .assignTimestampsAndWatermarks(
    WatermarkStrategy.forBoundedOutOfOrderness<Reading>(2_000)
      .withTimestampAssigner(({ timeMs }) => timeMs)
      .withIdleness(30_000),
  )
  .setParallelism(1)
  .keyBy(({ sensor }) => sensor)
  .process(new Alerts())
  .name('alerts')
  .uid('alerts')
  .print();
await env.execute('Sensor alerts');
