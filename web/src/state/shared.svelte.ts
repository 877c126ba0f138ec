// Data that the frame and several pages use: projections, readiness, tables. Each is fetched once for all of them.
import { projections, readiness, tables } from '../api/calls';
import type { Projection, Readiness, Table } from '../api/types';
import { Resource } from './resource.svelte';
import { session } from './session.svelte';

export interface SharedData {
  projections: Resource<Projection[]>;
  readiness: Resource<Readiness>;
  tables: Resource<Table[]>;
}

/** Call it once, in the frame. */
export function sharedData(): SharedData {
  // Requests wait for the identity; signing in repeats them.
  const whenIdentified = <T>(fetch: (signal: AbortSignal) => Promise<T>) => {
    return (signal: AbortSignal) => (session.identity ? fetch(signal) : new Promise<T>(() => {}));
  };
  return {
    projections: new Resource(whenIdentified(projections), 2_000),
    readiness: new Resource(whenIdentified(readiness), 2_000),
    tables: new Resource(whenIdentified(tables), 5_000),
  };
}
