// The newest rows of a table that is listened to: shown, or waiting while somebody reads. Memory is bounded either way.
import type { Row } from '../api/types';

/** Rows that are kept for show. Nobody scrolls further back here; the table page has them all. */
const SHOWN_MAX = 1_000;

export class Tail {
  /** The newest first. */
  shown: Row[] = [];
  /** Rows that came while the list was held still. */
  waiting = 0;
  /** Rows that the host left out because this page was too slow. */
  lost = 0;
  /** Rows that came in all. */
  seen = 0;
  #held = false;
  #next: Row[] = [];
  #known = new Set<string>();

  begin(): void {
    this.shown = [];
    this.#next = [];
    this.#known.clear();
    this.waiting = 0;
    this.lost = 0;
  }

  /** Rows in the order in which they came. One that is known (it was changed) moves to the top. */
  add(rows: readonly Row[]): void {
    this.seen += rows.length;
    const newest = [...rows].reverse();
    if (this.#held) {
      this.#next = [...newest, ...this.#next].slice(0, SHOWN_MAX);
      this.waiting += rows.length;
    } else this.#put(newest);
  }

  /** What was there before the listening began, the newest first. */
  before(rows: readonly Row[]): void {
    const older = rows.filter((row) => !this.#known.has(row._row));
    for (const row of older) this.#known.add(row._row);
    this.shown = [...this.shown, ...older].slice(0, SHOWN_MAX);
  }

  skip(count: number): void {
    this.lost += count;
  }

  hold(held: boolean): void {
    this.#held = held;
    if (held || this.#next.length === 0) return;
    this.#put(this.#next);
    this.#next = [];
    this.waiting = 0;
  }

  #put(newest: readonly Row[]): void {
    const fresh = new Map<string, Row>();
    for (const row of newest) if (!fresh.has(row._row)) fresh.set(row._row, row);
    const older = this.shown.filter((row) => !fresh.has(row._row));
    this.shown = [...fresh.values(), ...older].slice(0, SHOWN_MAX);
    this.#known = new Set(this.shown.map((row) => row._row));
  }
}
