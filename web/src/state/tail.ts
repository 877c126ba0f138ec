// The newest rows of a live table: displayed, or pending while the list is paused. Memory is bounded in both cases.
import type { Row } from '../api/types';

/** Rows kept for display. The table page shows older ones. */
const ROWS_MAX = 1_000;

export class Tail {
  /** Displayed rows, newest first. */
  rows: Row[] = [];
  /** Rows received while the list was paused. */
  pending = 0;
  /** Rows that the host omitted because this page was too slow. */
  omitted = 0;
  /** All rows received. */
  received = 0;
  #paused = false;
  #pendingRows: Row[] = [];
  #knownKeys = new Set<string>();
  #keyColumns: readonly string[] = [];

  /** Starts again with the rows of a table. Its primary key recognises a row after an update, which changes `_id`. */
  reset(primaryKey: readonly string[]): void {
    this.#keyColumns = primaryKey;
    this.rows = [];
    this.#pendingRows = [];
    this.#knownKeys.clear();
    this.pending = 0;
    this.omitted = 0;
  }

  /** Adds rows in the order of arrival. A row that is already displayed was updated, and moves to the top. */
  add(rows: readonly Row[]): void {
    this.received += rows.length;
    const newest = [...rows].reverse();
    if (this.#paused) {
      this.#pendingRows = [...newest, ...this.#pendingRows].slice(0, ROWS_MAX);
      this.pending += rows.length;
    } else this.#display(newest);
  }

  /** Adds rows stored before the subscription started, newest first. */
  addOlder(rows: readonly Row[]): void {
    const older = rows.filter((row) => !this.#knownKeys.has(this.#keyOf(row)));
    for (const row of older) this.#knownKeys.add(this.#keyOf(row));
    this.rows = [...this.rows, ...older].slice(0, ROWS_MAX);
  }

  addOmitted(count: number): void {
    this.omitted += count;
  }

  setPaused(paused: boolean): void {
    this.#paused = paused;
    if (paused || this.#pendingRows.length === 0) return;
    this.#display(this.#pendingRows);
    this.#pendingRows = [];
    this.pending = 0;
  }

  #display(newest: readonly Row[]): void {
    const byKey = new Map<string, Row>();
    for (const row of newest) {
      const key = this.#keyOf(row);
      if (!byKey.has(key)) byKey.set(key, row);
    }
    const older = this.rows.filter((row) => !byKey.has(this.#keyOf(row)));
    this.rows = [...byKey.values(), ...older].slice(0, ROWS_MAX);
    this.#knownKeys = new Set(this.rows.map((row) => this.#keyOf(row)));
  }

  #keyOf(row: Row): string {
    if (this.#keyColumns.length === 0) return row._id;
    return JSON.stringify(this.#keyColumns.map((column) => row[column]));
  }
}
