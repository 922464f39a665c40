import { useCluster, useSelectedJob } from '../use-cluster.ts';
import { ConnectionBanner } from './connection-banner.tsx';
import { EventList } from './event-list.tsx';
import { JobPage } from './job-page.tsx';
import { JobTable } from './job-table.tsx';
import { Masters } from './masters.tsx';
import { Workers } from './workers.tsx';

export function App() {
  const jobId = useSelectedJob();
  const state = useCluster(jobId);
  const { overview } = state;
  return (
    <>
      <header>
        <a class="brand" href="#/">
          millrace
        </a>
        <span class="facts">
          {overview === undefined
            ? ''
            : `${overview['slots-total'] - overview['slots-available']} of ${overview['slots-total']} slots in use · ${overview['jobs-running']} running · ${overview['jobs-finished']} finished · ${overview['jobs-cancelled']} cancelled · ${overview['jobs-failed']} failed`}
        </span>
        <span class="facts right">
          {state.ha === undefined ? '' : `answered by ${state.ha.self.id} (${state.ha.self.role})`}
        </span>
      </header>
      <ConnectionBanner connection={state.connection} ha={state.ha} />
      <main>
        {jobId === undefined ? (
          <>
            <div class="columns">
              <Masters ha={state.ha} />
              <Workers workers={state.taskManagers} />
            </div>
            <JobTable jobs={state.jobs} />
            <EventList events={state.ha?.events ?? []} />
          </>
        ) : (
          <JobPage jobId={jobId} job={state.job} base={state.base} />
        )}
      </main>
    </>
  );
}
