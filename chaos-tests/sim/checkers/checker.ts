import type { Sightings } from '../sightings.ts';
import type { SimCluster } from '../sim-cluster.ts';
import type { SimWorld } from '../sim-world.ts';

/** Looks at what happens, and once more when everything has come to rest. */
export type Checker = (world: SimWorld) => Partial<Sightings> & {
  /** False while something that it judges is still on its way to rest. */
  settled?(): boolean;
  atRest?(cluster: SimCluster): void;
};
