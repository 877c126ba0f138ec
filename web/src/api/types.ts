// What the host answers, as its API document (`/api/v1/openapi.json`) says. Times are RFC 3339 text.

export interface Info {
  name: string;
  version: string;
  needs_token: boolean;
  sql: boolean;
  started?: string;
}

export interface WhoAmI {
  name: string | null;
  role: 'viewer' | 'operator';
}

export interface Check {
  name: string;
  ok: boolean;
  detail: string;
}

export interface Readiness {
  ready: boolean;
  checks: Check[];
}

export interface Projection {
  plugin: string;
  version: string;
  digest: string;
  source: string;
  stream: string | null;
  state: 'starting' | 'waiting-for-stream' | 'running' | 'paused' | 'retrying' | 'failed' | 'stopped';
  epoch: number;
  checkpoint: number;
  last_sequence: number | null;
  lag: number | null;
  messages: number;
  rows: number;
  dead_letters: number;
  missing: number;
  last_error: string | null;
  stalled_since_ms: number | null;
}

export interface Sample {
  at: string;
  messages: number;
  rows: number;
  dead_letters: number;
  lag: number | null;
}

export interface History {
  interval_ms: number;
  projections: { plugin: string; source: string; samples: Sample[] }[];
}

export type ColumnType = 'integer' | 'real' | 'text' | 'blob' | 'boolean' | 'timestamp' | 'json';

export interface Column {
  name: string;
  type: ColumnType;
  nullable: boolean;
  role: 'time' | 'entity' | 'facet' | 'measure' | null;
  unit: string | null;
  doc: string;
  hints: Record<string, string>;
  retired?: boolean;
}

export interface Table {
  name: string;
  plugin: string;
  doc: string;
  columns: Column[];
  primary_key: string[];
  retention_days: number | null;
  hints: Record<string, string>;
  rows: number;
  rows_exact: boolean;
  rows_expired: number;
  time_column: string | null;
  entity_columns: string[];
  facet_columns: string[];
  measure_columns: { name: string; unit: string | null }[];
  newest: string | null;
}

export interface Origin {
  source: string | null;
  stream?: string | null;
  epoch: number | null;
  sequence: number;
}

/** A row: its columns by name, and `_row` and `_origin`, which no column can be called. */
export type Row = Record<string, unknown> & { _row: string; _origin: Origin };

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
}

export interface Count {
  rows: number;
  exact: boolean;
}

export interface Facet {
  column: string;
  values: { value: unknown; count: number }[];
  nulls: number;
  more: boolean;
  exact: boolean;
}

export interface Bucket {
  start: string;
  count: number;
  by?: Record<string, number>;
}

export interface Histogram {
  from: string | null;
  to: string | null;
  bucket_ms: number;
  buckets: Bucket[];
  exact: boolean;
}

export interface Series {
  measure: string;
  key: string | null;
  points: [number, number | null][];
}

export interface SeriesAnswer {
  from: string | null;
  to: string | null;
  bucket_ms: number;
  series: Series[];
  /** Whether there are more keys than lines. */
  more?: boolean;
  /** Whether all rows were looked at. */
  exact?: boolean;
}

export interface Message {
  subject: string;
  published: string;
  headers: [string, string][];
  payload_base64: string;
  bytes: number;
}

export interface RowDetail {
  row: Row;
  origin: Origin;
  version: { plugin: string; version: string; digest: string } | null;
  message: Message | null;
  message_missing: string | null;
  /** What else there is to know of where the row comes from. */
  note?: string | null;
  neighbours: { before: Row[]; after: Row[] };
}

export interface DeadLetter {
  id: number;
  plugin: string;
  source: string;
  epoch: number;
  stream: string | null;
  sequence: number;
  subject: string;
  published: string;
  headers: [string, string][];
  payload_base64: string;
  payload_text: string | null;
  class: string;
  reason: string;
  version: string;
  digest: string;
  attempts: number;
  state: 'open' | 'resolved' | 'discarded';
  first_at: string;
  last_at: string;
}

export interface Healed {
  tried: number;
  resolved: number;
  rows: number;
}

export interface LedgerRange {
  id: number;
  plugin: string;
  source: string;
  epoch: number;
  stream: string | null;
  version: string;
  digest: string;
  first_sequence: number;
  last_sequence: number;
  messages: number;
  projected: number;
  skipped: number;
  dead: number;
  missing: number;
  rows: number;
  first_at: string;
  last_at: string;
}

export type VersionState = 'installed' | 'active' | 'paused' | 'failed' | 'replaced';

export interface Signature {
  state: 'good' | 'missing' | 'unknown-key' | 'bad' | 'not-checked';
  key: string | null;
  comment: string | null;
  reason: string | null;
}

export interface Version {
  version: string;
  digest: string;
  contract: string;
  state: VersionState;
  installed_at: string;
  activated_at: string | null;
  component_bytes: number | null;
  came_from: string | null;
  failed: string | null;
  signature?: Signature;
  ranges?: LedgerRange[];
}

export interface Plugin {
  name: string;
  state: VersionState;
  active: string | null;
  previous: string | null;
  paused: string | null;
  sources: string[];
  tables: string[];
  versions: Version[];
  settings?: Settings;
}

export interface Settings {
  limits?: Record<string, string | number>;
  dead_letters?: Record<string, string | number>;
  rollback?: Record<string, string | number | boolean>;
  wasi?: boolean;
}

export type Effect = 'none' | 'additive' | 'needs-rebuild';

export interface Difference {
  place: string;
  words: string;
  effect: Effect;
}

export interface Taken {
  plugin: string;
  version: string;
  digest: string;
  state: VersionState;
  from: string | null;
  effect: Effect;
  differences: Difference[];
  healed?: Healed;
}

export interface Refusal {
  what: string;
  reason: string;
  holds_up: boolean;
}

export interface AuditEntry {
  id: number;
  at: string;
  actor: string;
  action: string;
  plugin: string | null;
  digest: string | null;
  outcome: 'done' | 'refused' | 'failed';
  detail: string;
}

export interface SqlAnswer {
  columns: string[];
  rows: unknown[][];
  truncated: boolean;
  elapsed_ms: number;
}

/** What one of the two versions did in a trial. */
export interface CanarySide {
  version: string;
  digest: string;
  messages: number;
  projected: number;
  skipped: number;
  rejected: number;
  rows: number;
  faults: number;
  decode_us_per_message: number;
  memory_peak_bytes: number;
}

export interface CanaryReport {
  plugin: string;
  old: CanarySide | null;
  new: CanarySide;
  tables: {
    table: string;
    same: number;
    changed: number;
    only_old: number;
    only_new: number;
    examples: { source: string; sequence: number; old: unknown; new: unknown }[];
  }[];
  sources: { source: string; stream: string | null; messages: number; note: string | null }[];
  differences: Difference[];
  effect: Effect;
  needs_rebuild: boolean;
  took_ms: number;
  partial: string[];
}
