// Asks the host. The only place that calls `fetch`; it adds the token and turns every "no" into a `Problem`.
import { parseJson } from './json';
import { token } from './token';

/** A "no" of the host, as RFC 9457 has it. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly hint: string | undefined,
    readonly problems: readonly string[],
  ) {
    super(detail || title);
  }
}

/** The host does not answer at all. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super('The host does not answer.', { cause });
  }
}

/** Values of the query; what is undefined is left out, a list is repeated. */
export type Query = Record<string, string | number | boolean | readonly string[] | undefined>;

export function address(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

interface Call {
  method?: string;
  query?: Query;
  body?: BodyInit;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Whether 503 is an answer like any other. */
  unready?: boolean;
}

/** One request. Throws `Problem`, `Unreachable`, or an `AbortError` when the signal says so. */
export async function request(path: string, call: Call = {}): Promise<Response> {
  const headers = new Headers(call.headers);
  const known = token.get();
  if (known) headers.set('authorization', `Bearer ${known}`);
  let response: Response;
  try {
    response = await fetch(address(path, call.query), {
      method: call.method ?? 'GET',
      headers,
      ...(call.body === undefined ? {} : { body: call.body }),
      ...(call.signal ? { signal: call.signal } : {}),
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable(error);
  }
  if (response.ok || (call.unready && response.status === 503)) return response;
  throw await problemOf(response);
}

async function problemOf(response: Response): Promise<Problem> {
  const text = await response.text();
  let said: Record<string, unknown> = {};
  try {
    said = (JSON.parse(text) ?? {}) as Record<string, unknown>;
  } catch {
    // A proxy before the host answers in its own words.
    said = { detail: text.slice(0, 300) };
  }
  const word = (name: string) => (typeof said[name] === 'string' ? (said[name] as string) : undefined);
  const problems = Array.isArray(said.problems) ? said.problems.map(String) : [];
  const problem = new Problem(
    response.status,
    word('title') ?? `The host answers ${response.status}`,
    word('detail') ?? '',
    word('hint'),
    problems,
  );
  if (response.status === 401) token.refused(problem);
  return problem;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export async function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  const response = await request(path, { ...(query ? { query } : {}), signal });
  return parseJson(await response.text()) as T;
}

/** Something that changes. The body is JSON. */
export async function change<T>(method: 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<T> {
  const call: Call = { method };
  if (body !== undefined) {
    call.body = JSON.stringify(body);
    call.headers = { 'content-type': 'application/json' };
  }
  const text = await (await request(path, call)).text();
  return (text ? parseJson(text) : undefined) as T;
}

/** Saves what a path answers as a file. A plain link would do it without a token, but a link cannot carry one. */
export async function save(path: string, query: Query, name: string): Promise<void> {
  const response = await request(path, { query });
  saveBlob(await response.blob(), name);
}

export function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser has begun to read it when the click is over; half a minute is for slow disks.
  setTimeout(() => URL.revokeObjectURL(link.href), 30_000);
}
