// Sends requests to the host. The only module that calls `fetch`; it adds the token and converts each rejection into a
// `Problem`.
import { parseJson } from './json';
import { token } from './token';

/** A rejection by the host, as RFC 9457 defines it. */
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

/** The host does not answer. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super('The host does not answer.', { cause });
  }
}

/** Query parameters; undefined omits one, a list repeats it. */
export type Query = Record<string, string | number | boolean | readonly string[] | undefined>;

export function buildUrl(path: string, query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) search.append(name, String(one));
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

interface RequestOptions {
  method?: string;
  query?: Query;
  body?: BodyInit;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** Return a response with status 503 instead of throwing. */
  acceptUnavailable?: boolean;
}

/** Sends one request. Throws `Problem`, `Unreachable`, or an `AbortError` when the signal is aborted. */
export async function request(path: string, options: RequestOptions = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  const bearer = token.get();
  if (bearer) headers.set('authorization', `Bearer ${bearer}`);
  let response: Response;
  try {
    response = await fetch(buildUrl(path, options.query), {
      method: options.method ?? 'GET',
      headers,
      ...(options.body === undefined ? {} : { body: options.body }),
      ...(options.signal ? { signal: options.signal } : {}),
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable(error);
  }
  if (response.ok || (options.acceptUnavailable && response.status === 503)) return response;
  throw await readProblem(response);
}

async function readProblem(response: Response): Promise<Problem> {
  const text = await response.text();
  let body: Record<string, unknown> = {};
  try {
    body = (JSON.parse(text) ?? {}) as Record<string, unknown>;
  } catch {
    // A proxy in front of the host answers in another format.
    body = { detail: text.slice(0, 300) };
  }
  const field = (name: string) => (typeof body[name] === 'string' ? (body[name] as string) : undefined);
  const problems = Array.isArray(body.problems) ? body.problems.map(String) : [];
  const problem = new Problem(
    response.status,
    field('title') ?? `The host answered with status ${response.status}`,
    field('detail') ?? '',
    field('hint'),
    problems,
  );
  if (response.status === 401) token.reject(problem);
  return problem;
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

export async function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  const response = await request(path, { ...(query ? { query } : {}), signal });
  return parseJson(await response.text()) as T;
}

/** Sends a change. The body is JSON. */
export async function send<T>(method: 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<T> {
  const options: RequestOptions = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { 'content-type': 'application/json' };
  }
  const text = await (await request(path, options)).text();
  return (text ? parseJson(text) : undefined) as T;
}

/** Downloads a path as a file. A plain link cannot send a token. */
export async function download(path: string, query: Query, fileName: string): Promise<void> {
  const response = await request(path, { query });
  saveBlob(await response.blob(), fileName);
}

export function saveBlob(blob: Blob, fileName: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = fileName;
  link.click();
  // The browser starts to read the blob when `click` returns; half a minute is enough for slow disks.
  setTimeout(() => URL.revokeObjectURL(link.href), 30_000);
}
