export interface Pauses {
  readonly totalMs: number;
  readonly longestMs: number;
  readonly longestCpuMs: number;
}

/** For how long processing waited between two of its turns. */
export class PauseWatch {
  private readonly startMs = performance.now();
  private endMs = performance.now();
  private endCpuMs = cpuMs();
  private longestMs = 0;
  private longestCpuMs = 0;

  turnBegins(): void {
    this.longestMs = Math.max(this.longestMs, performance.now() - this.endMs);
    // Without the time for which another process had the core.
    this.longestCpuMs = Math.max(this.longestCpuMs, cpuMs() - this.endCpuMs);
  }

  turnEnds(): void {
    this.endMs = performance.now();
    this.endCpuMs = cpuMs();
  }

  pauses(): Pauses {
    const { longestMs, longestCpuMs } = this;
    return { totalMs: performance.now() - this.startMs, longestMs, longestCpuMs };
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}
