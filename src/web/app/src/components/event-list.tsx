import type { Ha } from '../api.ts';
import { time } from '../format.ts';

export function EventList({ events }: { events: Ha['events'] }) {
  return (
    <section data-testid="events">
      <h2>Elections, as seen by this master</h2>
      <table>
        <tbody>
          {[...events].reverse().map((event) => (
            <tr key={`${event.timestamp}-${event.kind}-${event.token}`}>
              <td class="narrow">{time(event.timestamp)}</td>
              <td class="narrow">{event.kind}</td>
              <td class="narrow">{event.replica ?? ''}</td>
              <td>{event.detail}</td>
            </tr>
          ))}
          {events.length === 0 && (
            <tr>
              <td>None yet.</td>
            </tr>
          )}
        </tbody>
      </table>
    </section>
  );
}
