import type { Ha } from '../api.ts';
import { time } from '../format.ts';
import { StateBadge } from './state-badge.tsx';

export function Masters({ ha }: { ha: Ha | undefined }) {
  const replicas = ha?.replicas ?? [];
  return (
    <section data-testid="masters">
      <h2>Masters</h2>
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>Role</th>
            <th>REST</th>
            <th>Since</th>
          </tr>
        </thead>
        <tbody>
          {replicas.map((replica) => (
            <tr key={replica.id}>
              <td>{replica.id}</td>
              <td>
                <StateBadge state={replica.role.toUpperCase()} />
              </td>
              <td>
                <a href={replica['rest-url']}>{replica['rest-url']}</a>
              </td>
              <td>{time(replica.role === 'leader' ? (ha?.leader?.['elected-at'] ?? 0) : replica['started-at'])}</td>
            </tr>
          ))}
          {replicas.length === 0 && (
            <tr>
              <td colSpan={4}>No master has registered.</td>
            </tr>
          )}
        </tbody>
      </table>
    </section>
  );
}
