import type { TaskManager } from '../api.ts';
import { duration } from '../format.ts';

export function Workers({ workers }: { workers: readonly TaskManager[] }) {
  return (
    <section data-testid="workers">
      <h2>Workers</h2>
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>Address</th>
            <th>Slots in use</th>
            <th>Last heartbeat</th>
          </tr>
        </thead>
        <tbody>
          {[...workers]
            .sort((a, b) => a.id.localeCompare(b.id))
            .map((worker) => (
              <tr key={worker.id}>
                <td>{worker.id}</td>
                <td>{worker.path}</td>
                <td>
                  {worker.slotsNumber - worker.freeSlots} of {worker.slotsNumber}
                </td>
                <td>{duration(worker.timeSinceLastHeartbeat)} ago</td>
              </tr>
            ))}
          {workers.length === 0 && (
            <tr>
              <td colSpan={4}>No worker is registered: start one with `millrace taskmanager`.</td>
            </tr>
          )}
        </tbody>
      </table>
    </section>
  );
}
