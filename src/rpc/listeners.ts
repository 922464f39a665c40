import { asError } from '../kernel/errors.ts';
import type { Logger } from '../kernel/log.ts';

/** Listeners of one kind of news. One that throws is logged and does not keep the others from hearing it. */
export class Listeners<T> {
  private readonly listeners = new Set<(news: T) => void>();

  constructor(private readonly log: Logger) {}

  subscribe(listener: (news: T) => void): () => void {
    // Wrapped, so that the same function may subscribe twice and unsubscribe once.
    const entry = (news: T) => listener(news);
    this.listeners.add(entry);
    return () => void this.listeners.delete(entry);
  }

  emit(news: T): void {
    for (const listener of [...this.listeners]) {
      try {
        listener(news);
      } catch (error) {
        this.log.error({ err: asError(error) }, 'listener failed');
      }
    }
  }
}
