// What the frame and several pages show: projections, readiness, tables. Asked once for all of them.
import { projections, readiness, tables } from '../api/calls';
import type { Projection, Readiness, Table } from '../api/types';
import { Asked } from './asked.svelte';
import { session } from './session.svelte';

export interface Shared {
  projections: Asked<Projection[]>;
  readiness: Asked<Readiness>;
  tables: Asked<Table[]>;
}

/** To be called once, by the frame. */
export function shared(): Shared {
  // Nothing is asked before it is known who asks; signing in asks anew.
  const known = <T>(ask: (signal: AbortSignal) => Promise<T>) => {
    return (signal: AbortSignal) => (session.who ? ask(signal) : new Promise<T>(() => {}));
  };
  return {
    projections: new Asked(known(projections), 2_000),
    readiness: new Asked(known(readiness), 2_000),
    tables: new Asked(known(tables), 5_000),
  };
}
