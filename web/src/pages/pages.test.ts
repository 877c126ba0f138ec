import { expect, test } from 'vitest';
import type { Column, Projection, Row, Table } from '../api/types';
import { assessHealth, ratesOf } from './health';
import { toItems, toLanes } from './timeline';

const projection = (over: Partial<Projection> = {}): Projection => ({
  plugin: 'obs-events',
  version: '0.1.0',
  digest: 'sha256:0',
  source: 'obs',
  stream: 'OBS',
  state: 'running',
  state_since_ms: 0,
  node: null,
  paused: null,
  epoch: 1,
  checkpoint: 1,
  last_sequence: 1,
  lag: 0,
  messages: 1,
  rows: 1,
  inserted: 1,
  updated: 0,
  present: 0,
  dead_letters: 0,
  missing: 0,
  last_error: null,
  last_error_at_ms: null,
  stalled_since_ms: null,
  warnings: [],
  replicas: [],
  ...over,
});
const ready = { ready: true, checks: [{ name: 'broker', ok: true, detail: 'connected' }] };

test('one sentence summarizes the health of the host', () => {
  expect(assessHealth(ready, [projection(), projection()], [])).toMatchObject({
    tone: 'good',
    sentence: 'Healthy: 2 sources running.',
  });
  expect(assessHealth(ready, [projection({ state: 'paused' }), projection()], []).sentence).toBe(
    'Healthy: 1 source running; 1 source paused.',
  );
  expect(assessHealth(ready, [], []).sentence).toBe('Healthy: no source is running yet.');
  const unready = { ready: false, checks: [{ name: 'broker', ok: false, detail: 'not connected' }] };
  expect(assessHealth(unready, [projection()], [])).toMatchObject({
    tone: 'bad',
    sentence: 'Problem: broker is not ready.',
    reasons: ['broker: not connected'],
  });
  expect(assessHealth(ready, [projection({ missing: 2 }), projection({ missing: 3 })], [])).toMatchObject({
    missing: 5,
  });
  const failure = { subject: 'x.wasm', reason: 'no component', blocks_messages: false, unsigned: false };
  expect(assessHealth(ready, [projection()], [failure])).toMatchObject({
    tone: 'warn',
    reasons: ['x.wasm: no component'],
  });
});

test('rates are computed between consecutive samples', () => {
  const sample = (at: string, messages: number) => ({ at, messages, rows: 0, dead_letters: 0, lag: 0 });
  const samples = [
    sample('2026-11-21T10:00:00Z', 0),
    sample('2026-11-21T10:00:10Z', 50),
    // The host was restarted.
    sample('2026-11-21T10:00:20Z', 10),
  ];
  expect(ratesOf(samples)).toEqual([5, 0]);
});

const column = (name: string, over: Partial<Column> = {}): Column => ({
  name,
  type: 'text',
  nullable: true,
  role: null,
  unit: null,
  doc: '',
  hints: {},
  ...over,
});
const table = (name: string, columns: Column[], time: string): Table =>
  ({ name, columns, time_column: time, hints: {} }) as unknown as Table;
let next = 0;
const row = (fields: Record<string, unknown>): Row => {
  next += 1;
  return { ...fields, _id: `1:${next}:0`, _origin: '1', _sequence: String(next), _row: '0' };
};

test('a start and its end form one span', () => {
  const events = table(
    'obs_events',
    [
      column('at', { type: 'timestamp', role: 'time' }),
      column('kind', { role: 'facet' }),
      column('payload', { type: 'json' }),
    ],
    'at',
  );
  const items = toItems(events, [
    row({ at: '2026-11-21T10:05:00Z', kind: 'process_exit', payload: { pid: 7 } }),
    row({ at: '2026-11-21T10:00:00Z', kind: 'process_start', payload: { pid: 7 } }),
    row({ at: '2026-11-21T10:01:00Z', kind: 'process_start', payload: { pid: 8 } }),
    row({ at: '2026-11-21T10:02:00Z', kind: 'boot', payload: {} }),
    row({ at: '2026-11-21T10:03:00Z', kind: 'logoff', payload: { terminal: 'pts/1' } }),
  ]);
  const by = Object.fromEntries(toLanes(items).map((lane) => [lane.name, lane.items]));
  expect(by['obs_events / process']?.map((item) => [item.rows, item.end && item.end - item.start])).toEqual([
    [2, 300_000],
    [1, undefined],
  ]);
  expect(by['obs_events / boot']?.[0]).toMatchObject({ rows: 1 });
  // An end without a start is a moment.
  expect(by['obs_events / session']?.map((item) => item.end === item.start)).toEqual([true]);
});

test('a row without a valid time is omitted', () => {
  const events = table(
    'events',
    [column('at', { type: 'timestamp', role: 'time' }), column('kind', { role: 'facet' })],
    'at',
  );
  const items = toItems(events, [
    row({ at: '2026-11-21T10:00:00Z', kind: 'boot' }),
    row({ at: null, kind: 'boot' }),
    row({ at: '-0013-04-27T00:00:00.000000Z', kind: 'boot' }),
  ]);
  expect(items.map((item) => item.start)).toEqual([Date.parse('2026-11-21T10:00:00Z')]);
});

test('a row with both times is a span', () => {
  const runs = table(
    'runs',
    [
      column('started_at', { type: 'timestamp', role: 'time' }),
      column('finished_at', { type: 'timestamp' }),
      column('job_id', { role: 'facet' }),
    ],
    'started_at',
  );
  const items = toItems(runs, [
    row({ started_at: '2026-11-21T10:00:00Z', finished_at: '2026-11-21T10:10:00Z', job_id: 'backup', exit_code: '2' }),
    row({ started_at: '2026-11-21T10:20:00Z', finished_at: null, job_id: 'backup', exit_code: null }),
  ]);
  expect(items.map((item) => [item.lane, item.end, item.bad])).toEqual([
    ['backup', Date.parse('2026-11-21T10:10:00Z'), true],
    ['backup', undefined, false],
  ]);
});
