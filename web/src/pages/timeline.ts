// The history of one entity: a start and its end form one span, whether they are in one row or in two.
import type { Row, Table } from '../api/types';

export interface Item {
  table: string;
  row: string;
  lane: string;
  /** Milliseconds since 1970. */
  start: number;
  /** Undefined while the span is open; equal to the start for a moment. */
  end: number | undefined;
  label: string;
  bad: boolean;
  /** The number of rows it consists of. */
  rows: number;
  /** Its line within the lane, so that overlapping spans do not cover each other. */
  track: number;
}

export interface Lane {
  name: string;
  items: Item[];
  tracks: number;
}

/** Lines per lane. Further overlapping spans share the last line. */
const TRACKS_MAX = 5;

const END = /^(finished|ended|completed|stopped|closed|done|exited)_at$|(^|_)end(_at|_time)?$/;
const PAIRS: [RegExp, RegExp][] = [
  [
    /^(.*?)[._-]?(start|started|begin|began|opened|up)$/i,
    /^(.*?)[._-]?(stop|stopped|end|ended|exit|exited|finished|closed|down)$/i,
  ],
  [/^(.*?)(logon|login)$/i, /^(.*?)(logoff|logout)$/i],
  [/^(.*?)(connect|connected)$/i, /^(.*?)(disconnect|disconnected)$/i],
];
/** Fields that identify the start and the end of the same thing. */
const IDENTITY_FIELDS = ['id', 'session', 'session_id', 'pid', 'line', 'terminal', 'name', 'user'];

/** The column with the end time, for tables whose rows are spans. */
export function endColumn(table: Table): string | undefined {
  const hinted = table.hints.span_end;
  if (hinted && table.columns.some((column) => column.name === hinted)) return hinted;
  return table.columns.find((column) => column.type === 'timestamp' && END.test(column.name))?.name;
}

/** The column with the kind of the row. */
export function laneColumn(table: Table): string | undefined {
  const text = table.columns.filter((column) => column.role === 'facet' && column.type === 'text');
  return table.hints.lane ?? text[0]?.name;
}

/** Converts the rows of one table into timeline items. */
export function toItems(table: Table, rows: readonly Row[]): Item[] {
  const time = table.time_column;
  if (!time) return [];
  const end = endColumn(table);
  const lane = laneColumn(table);
  // A row without a valid time has no place on the timeline.
  const placed = rows.filter((row) => Number.isFinite(Date.parse(String(row[time]))));
  const items = placed.map((row): Item => {
    const kind = lane ? row[lane] : undefined;
    const start = Date.parse(String(row[time]));
    const ended = end ? row[end] : row[time];
    return {
      table: table.name,
      row: row._id,
      lane: kind === null || kind === undefined ? table.name : String(kind),
      start,
      end: ended === null || ended === undefined ? undefined : Date.parse(String(ended)),
      label: labelOf(table, row, kind),
      bad: isBad(row),
      rows: 1,
      track: 0,
    };
  });
  return end ? items : pairStartsAndEnds(items, placed);
}

function labelOf(table: Table, row: Row, kind: unknown): string {
  const document = table.columns.find((column) => column.type === 'json');
  const inner = document ? row[document.name] : undefined;
  const values = inner && typeof inner === 'object' ? Object.values(inner as object) : [];
  const about = values.filter((value) => typeof value === 'string' || typeof value === 'number').slice(0, 3);
  return [kind ?? table.name, ...about].map(String).join(' · ').slice(0, 160);
}

function isBad(row: Row): boolean {
  const code = row.exit_code;
  return (code !== null && code !== undefined && String(code) !== '0') || row.ok === false || row.success === false;
}

/** Joins `x_started` with the next `x_exited` of the same thing. The items may be in any order. */
function pairStartsAndEnds(items: readonly Item[], rows: readonly Row[]): Item[] {
  const order = items.map((_, index) => index).sort((a, b) => (items[a]?.start ?? 0) - (items[b]?.start ?? 0));
  const open = new Map<string, Item>();
  const found: Item[] = [];
  for (const index of order) {
    const item = items[index];
    const row = rows[index];
    if (!item || !row) continue;
    const kind = stemOf(item.lane);
    if (!kind) {
      found.push(item);
      continue;
    }
    const key = `${kind.stem}\n${identityOf(row)}`;
    const started = open.get(key);
    if (kind.starts) {
      const span: Item = { ...item, lane: kind.stem, end: undefined };
      open.set(key, span);
      found.push(span);
    } else if (started) {
      started.end = item.start;
      started.bad ||= item.bad;
      started.rows += 1;
      open.delete(key);
    } else found.push({ ...item, lane: kind.stem });
  }
  return found;
}

function stemOf(kind: string): { stem: string; starts: boolean } | undefined {
  for (const [start, end] of PAIRS) {
    for (const [pattern, starts] of [
      [start, true],
      [end, false],
    ] as const) {
      const match = pattern.exec(kind);
      if (match) return { stem: match[1] || (/^log/i.test(match[2] ?? '') ? 'session' : 'run'), starts };
    }
  }
  return undefined;
}

function identityOf(row: Row): string {
  for (const value of Object.values(row)) {
    if (value === null || typeof value !== 'object') continue;
    const fields = value as Record<string, unknown>;
    const name = IDENTITY_FIELDS.find((one) => typeof fields[one] === 'string' || typeof fields[one] === 'number');
    if (name) return `${name}=${fields[name]}`;
  }
  return '';
}

/** Lanes in the order of their first item, each with its items in time order. */
export function toLanes(items: readonly Item[]): Lane[] {
  const by = new Map<string, Item[]>();
  for (const item of [...items].sort((a, b) => a.start - b.start)) {
    const name = item.lane === item.table ? item.table : `${item.table} / ${item.lane}`;
    const list = by.get(name);
    if (list) list.push(item);
    else by.set(name, [item]);
  }
  return [...by].map(([name, list]) => ({ name, items: list, tracks: assignTracks(list) }));
}

/** Assigns every span to the first line that is free when it starts. Returns the number of lines. */
function assignTracks(items: readonly Item[]): number {
  const busyUntil: number[] = [];
  for (const item of items) {
    if (item.end === item.start) continue;
    const free = busyUntil.findIndex((until) => until <= item.start);
    item.track = free >= 0 ? free : Math.min(busyUntil.length, TRACKS_MAX - 1);
    busyUntil[item.track] = Math.max(busyUntil[item.track] ?? 0, item.end ?? Number.POSITIVE_INFINITY);
  }
  return Math.max(1, busyUntil.length);
}
