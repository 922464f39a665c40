import { useState } from 'preact/hooks';
import { cancelJob, type Checkpoints, type Exceptions, type Job } from '../api.ts';
import type { ClusterState } from '../cluster-state.ts';
import { bytes, count, duration, time } from '../format.ts';
import { StateBadge } from './state-badge.tsx';

const ENDED = ['FINISHED', 'CANCELED', 'FAILED'];

export function JobPage({ jobId, job, base }: { jobId: string; job: ClusterState['job']; base: string }) {
  const [problem, setProblem] = useState<string>();
  if (job === undefined) return <p>Job {jobId} is not known (yet).</p>;
  const { details } = job;
  const cancel = () => {
    if (!window.confirm(`Cancel "${details.name}"?`)) return;
    cancelJob(base, jobId).catch((error: unknown) => setProblem(String(error)));
  };
  return (
    <>
      <section data-testid="job">
        <h2>
          {details.name} <StateBadge state={details.state} />
          {!ENDED.includes(details.state) && (
            <button type="button" onClick={cancel}>
              Cancel
            </button>
          )}
        </h2>
        <p class="mono">
          {jobId} · started {time(details['start-time'])} · {duration(details.duration)} · {details.restarts} restarts
          {details['waiting-for'] === null ? '' : ` · ${details['waiting-for']}`}
        </p>
        {problem !== undefined && <p class="problem">{problem}</p>}
      </section>
      <VertexTable job={details} />
      <CheckpointTable checkpoints={job.checkpoints} />
      <ExceptionList exceptions={job.exceptions} />
    </>
  );
}

function VertexTable({ job }: { job: Job }) {
  return (
    <section data-testid="vertices">
      <h2>Vertices</h2>
      <table>
        <thead>
          <tr>
            <th>Name</th>
            <th>State</th>
            <th>Parallelism</th>
            <th>Records in</th>
            <th>Records out</th>
            <th>Bytes in</th>
            <th>Bytes out</th>
          </tr>
        </thead>
        <tbody>
          {job.vertices.map((vertex) => (
            <tr key={vertex.id}>
              <td>{vertex.name}</td>
              <td>
                <StateBadge state={vertex.status} />
              </td>
              <td>{vertex.parallelism}</td>
              <td>{count(vertex.metrics['read-records'])}</td>
              <td>{count(vertex.metrics['write-records'])}</td>
              <td>{bytes(Number(vertex.metrics['read-bytes'] ?? 0))}</td>
              <td>{bytes(Number(vertex.metrics['write-bytes'] ?? 0))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function CheckpointTable({ checkpoints }: { checkpoints: Checkpoints }) {
  const { counts, latest, history } = checkpoints;
  return (
    <section data-testid="checkpoints">
      <h2>Checkpoints</h2>
      <p>
        {counts.completed} completed, {counts.in_progress} in progress, {counts.failed} failed
        {latest.restored === null
          ? ''
          : `; restored from ${latest.restored.id} at ${time(latest.restored.restore_timestamp)}`}
      </p>
      <table>
        <thead>
          <tr>
            <th>Id</th>
            <th>Status</th>
            <th>Triggered</th>
            <th>Duration</th>
            <th>State</th>
            <th>Acknowledged</th>
          </tr>
        </thead>
        <tbody>
          {history.slice(0, 10).map((one) => (
            <tr key={one.id}>
              <td>{one.id}</td>
              <td>
                <StateBadge state={one.status} /> {one.failure_message ?? ''}
              </td>
              <td>{time(one.trigger_timestamp)}</td>
              <td>{duration(one.end_to_end_duration)}</td>
              <td>{bytes(one.state_size)}</td>
              <td>
                {one.num_acknowledged_subtasks} of {one.num_subtasks}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function ExceptionList({ exceptions }: { exceptions: Exceptions }) {
  const { entries } = exceptions.exceptionHistory;
  if (entries.length === 0) return null;
  return (
    <section data-testid="exceptions">
      <h2>Exceptions</h2>
      {entries.map((entry) => (
        <details key={`${entry.timestamp}-${entry.exceptionName}`}>
          <summary>
            {time(entry.timestamp)} {entry.taskName ?? ''} {entry.stacktrace.split('\n', 1)[0]}
          </summary>
          <pre>{entry.stacktrace}</pre>
        </details>
      ))}
    </section>
  );
}
