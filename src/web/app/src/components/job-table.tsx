import type { JobRow } from '../api.ts';
import { duration, time } from '../format.ts';
import { StateBadge } from './state-badge.tsx';

export function JobTable({ jobs }: { jobs: readonly JobRow[] }) {
  return (
    <section data-testid="jobs">
      <h2>Jobs</h2>
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>Id</th>
            <th>State</th>
            <th>Started</th>
            <th>Duration</th>
            <th>Tasks</th>
          </tr>
        </thead>
        <tbody>
          {jobs.map((job) => (
            <tr key={job.jid}>
              <td>
                <a href={`#/jobs/${job.jid}`}>{job.name}</a>
              </td>
              <td class="mono">{job.jid}</td>
              <td>
                <StateBadge state={job.state} />
              </td>
              <td>{time(job['start-time'])}</td>
              <td>{duration(job.duration)}</td>
              <td>
                {(job.tasks.running ?? 0) + (job.tasks.finished ?? 0)} of {job.tasks.total ?? 0}
              </td>
            </tr>
          ))}
          {jobs.length === 0 && (
            <tr>
              <td colSpan={6}>No jobs yet: `millrace run job.ts` submits one.</td>
            </tr>
          )}
        </tbody>
      </table>
    </section>
  );
}
