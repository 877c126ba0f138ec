// The API requests of the dashboard, by name.

import { get, type Query, request, send } from './client';
import { parseJson } from './json';
import type * as T from './types';

const V1 = '/api/v1';
const table = (name: string) => `${V1}/tables/${encodeURIComponent(name)}`;
const plugin = (name: string) => `${V1}/plugins/${encodeURIComponent(name)}`;

/** Requests integers as text, because JavaScript rounds beyond 2^53. */
const EXACT = { integers: 'text' };

/** Readiness has status 503 when a check fails; the body names the check. */
export async function readiness(signal?: AbortSignal): Promise<T.Readiness> {
  const response = await request('/readyz', { signal, acceptUnavailable: true });
  return (await response.json()) as T.Readiness;
}

export const projections = (signal?: AbortSignal) => get<T.Projection[]>(`${V1}/projections`, {}, signal);
export const history = (signal?: AbortSignal) => get<T.History>(`${V1}/projections/history`, {}, signal);
export const tables = (signal?: AbortSignal) => get<T.Table[]>(`${V1}/tables`, {}, signal);
export const tableInfo = (name: string, signal?: AbortSignal) => get<T.Table>(table(name), {}, signal);

export const rows = (name: string, query: Query, signal?: AbortSignal) =>
  get<T.Page<T.Row>>(`${table(name)}/rows`, { ...EXACT, ...query }, signal);
export const count = (name: string, query: Query, signal?: AbortSignal) =>
  get<T.Count>(`${table(name)}/count`, query, signal);
export const row = (name: string, key: string, signal?: AbortSignal) =>
  get<T.RowDetail>(`${table(name)}/rows/${encodeURIComponent(key)}`, EXACT, signal);
export const facets = (name: string, query: Query, signal?: AbortSignal) =>
  get<T.Facets>(`${table(name)}/facets`, { ...EXACT, ...query }, signal);
export const histogram = (name: string, query: Query, signal?: AbortSignal) =>
  get<T.Histogram>(`${table(name)}/histogram`, query, signal);
export const series = (name: string, query: Query, signal?: AbortSignal) =>
  get<T.SeriesAnswer>(`${table(name)}/series`, query, signal);
export const tailPath = (name: string) => `${table(name)}/tail`;
export const exportPath = (name: string) => `${table(name)}/export`;

export const deadLetters = (query: Query, signal?: AbortSignal) =>
  get<T.Page<T.DeadLetter>>(`${V1}/dead-letters`, query, signal);
export const deadLetterReasons = (query: Query, signal?: AbortSignal) =>
  get<T.DeadLetterReasons>(`${V1}/dead-letters/reasons`, query, signal);
export const retryDeadLetters = (which: T.DeadLetterFilter) =>
  send<T.RetryResult>('POST', `${V1}/dead-letters/retry`, which);
export const discardDeadLetters = (which: T.DeadLetterFilter) =>
  send<T.DiscardResult>('POST', `${V1}/dead-letters/discard`, which);

export const plugins = (signal?: AbortSignal) => get<T.ListedPlugin[]>(`${V1}/plugins`, {}, signal);
export const pluginDetail = (name: string, signal?: AbortSignal) => get<T.Plugin>(plugin(name), {}, signal);
export const pluginDescription = (name: string, version: string, signal?: AbortSignal) =>
  get<T.DescriptionAnswer>(`${plugin(name)}/description`, { version }, signal);
export const loadFailures = (signal?: AbortSignal) => get<T.LoadFailure[]>(`${V1}/plugin-files`, {}, signal);
export const pluginAction = <A>(name: string, action: string, body?: object) =>
  send<A>('POST', `${plugin(name)}/${action}`, body);
export const setPluginSettings = (name: string, changes: Record<string, string>) =>
  send<T.Settings>('PUT', `${plugin(name)}/settings`, { changes });

/** Uploads a component. The host verifies and stores it without running it. */
export async function install(component: Blob): Promise<T.Installed> {
  const headers = { 'content-type': 'application/wasm' };
  const response = await request(`${V1}/plugins`, { method: 'POST', body: component, headers });
  return parseJson(await response.text()) as T.Installed;
}

export const audit = (query: Query, signal?: AbortSignal) => get<T.Page<T.AuditEntry>>(`${V1}/audit`, query, signal);
export const gaps = (query: Query, signal?: AbortSignal) => get<T.Page<T.Gap>>(`${V1}/gaps`, query, signal);
export const sql = (query: string, signal?: AbortSignal) => get<T.SqlAnswer>(`${V1}/sql`, { query }, signal);
