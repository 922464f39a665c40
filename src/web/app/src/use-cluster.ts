import { useEffect, useRef, useState } from 'preact/hooks';
import { type ClusterState, INITIAL, refresh } from './cluster-state.ts';

const EVERY_MS = 1_000;
/** Faster while something is wrong, so that the page says "recovered" as soon as it is true. */
const EVERY_MS_IN_TROUBLE = 250;

/** Keeps the state fresh while the page is open. */
export function useCluster(jobId: string | undefined): ClusterState {
  const [state, setState] = useState(INITIAL);
  const latest = useRef(state);
  useEffect(() => {
    let open = true;
    let timer: number | undefined;
    const round = async () => {
      const next = await refresh(latest.current, jobId);
      if (!open) return;
      latest.current = next;
      setState(next);
      timer = window.setTimeout(() => void round(), next.connection.kind === 'live' ? EVERY_MS : EVERY_MS_IN_TROUBLE);
    };
    void round();
    return () => {
      open = false;
      window.clearTimeout(timer);
    };
  }, [jobId]);
  return state;
}

/** The job named in the address (`#/jobs/<id>`), or undefined for the overview. */
export function useSelectedJob(): string | undefined {
  const [hash, setHash] = useState(window.location.hash);
  useEffect(() => {
    const changed = () => setHash(window.location.hash);
    window.addEventListener('hashchange', changed);
    return () => window.removeEventListener('hashchange', changed);
  }, []);
  return /^#\/jobs\/([0-9a-f]{32})$/.exec(hash)?.[1];
}
