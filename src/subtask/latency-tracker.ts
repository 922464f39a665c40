import type { LatencyStats } from '../contracts/task.ts';
import type { LatencyMarker } from '../exchange/channel-message.ts';
import { type Clock, every, type Timer } from '../kernel/clock.ts';
import type { OperatorId } from '../kernel/ids.ts';

/** Markers of a source that its figures are made of (`metrics.latency.history-size` of Flink). */
const HISTORY_SIZE = 128;

export interface LatencyTrackerSpec {
  readonly clock: Clock;
  /** Of a source task: it sends markers, every `intervalMs`. */
  readonly source: { readonly id: OperatorId; readonly subtaskIndex: number; readonly intervalMs: number } | undefined;
  /** To one consumer of each output. */
  readonly forward: (marker: LatencyMarker) => void;
  readonly wake: () => void;
}

/**
 * One task's part in tracking latency. Markers go the way of records, wait where they wait, and skip user
 * functions, as in Flink; how old they are on arrival includes the difference between two hosts' clocks.
 */
export class LatencyTracker {
  /** It is time for a marker: the task says `emit` in its next slice, when its outputs have room. */
  due = false;
  private readonly bySource = new Map<OperatorId, History>();
  private readonly timer: Timer | undefined;

  constructor(private readonly spec: LatencyTrackerSpec) {
    const { clock, source, wake } = spec;
    if (source === undefined) return;
    this.timer = every(clock, source.intervalMs, () => {
      this.due = true;
      wake();
    });
  }

  emit(): void {
    this.due = false;
    const { source, clock, forward } = this.spec;
    if (source === undefined) return;
    forward({ markedWallMs: clock.wallMs(), sourceId: source.id, sourceSubtask: source.subtaskIndex });
  }

  received(marker: LatencyMarker): void {
    let history = this.bySource.get(marker.sourceId);
    if (history === undefined) {
      history = { ages: [], markers: 0 };
      this.bySource.set(marker.sourceId, history);
    }
    // A clock that lags behind the source's would show records that arrive before they are sent.
    history.ages[history.markers % HISTORY_SIZE] = Math.max(0, this.spec.clock.wallMs() - marker.markedWallMs);
    history.markers++;
    this.spec.forward(marker);
  }

  report(): LatencyStats[] {
    return [...this.bySource].map(([sourceId, { ages, markers }]) => ({ sourceId, markers, ...statsOf(ages) }));
  }

  close(): void {
    this.timer?.cancel();
  }
}

interface History {
  /** A ring. */
  readonly ages: number[];
  markers: number;
}

function statsOf(ages: readonly number[]): Omit<LatencyStats, 'sourceId' | 'markers'> {
  const sorted = [...ages].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return {
    min: at(0),
    max: at(1),
    mean: sorted.reduce((sum, age) => sum + age, 0) / sorted.length,
    median: at(0.5),
    p75: at(0.75),
    p90: at(0.9),
    p95: at(0.95),
    p98: at(0.98),
    p99: at(0.99),
    p999: at(0.999),
  };
}
