export function StateBadge({ state }: { state: string }) {
  return <span class={`badge ${state.toLowerCase()}`}>{state}</span>;
}
