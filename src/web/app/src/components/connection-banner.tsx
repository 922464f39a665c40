import type { Ha } from '../api.ts';
import type { ClusterState } from '../cluster-state.ts';
import { duration } from '../format.ts';

/** One sentence on what is happening, always there, so that nothing jumps when it changes. */
export function ConnectionBanner({ connection, ha }: { connection: ClusterState['connection']; ha: Ha | undefined }) {
  switch (connection.kind) {
    case 'live':
      return (
        <div class="banner live" role="status" data-testid="banner">
          <b>{ha?.leader?.id ?? 'nobody'}</b> leads{ha?.leader ? ` under token ${ha.leader.token}` : ''};{' '}
          {Math.max(0, (ha?.replicas.length ?? 1) - 1)} standing by.
        </div>
      );
    case 'election':
      return (
        <div class="banner election" role="status" data-testid="banner">
          <b>No leader can be asked</b> for {duration(Date.now() - connection.sinceMs)}: a master is being elected or is
          recovering the jobs. Tasks and their data are safe. What is shown is the last known state. (
          {connection.reason})
        </div>
      );
    case 'away':
      return (
        <div class="banner away" role="status" data-testid="banner">
          <b>No master answers</b> for {duration(Date.now() - connection.sinceMs)}; asking all known ones again. (
          {connection.reason})
        </div>
      );
  }
}
