import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildUrl, get, isAbort, Problem, request, send, Unreachable } from './client';
import { token } from './token';

const fetchMock = vi.fn<typeof fetch>();
const respond = (body: string, status = 200) => fetchMock.mockResolvedValueOnce(new Response(body, { status }));
const rejection = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error) => error,
  );

beforeEach(() => {
  fetchMock.mockReset();
  vi.stubGlobal('fetch', fetchMock);
  sessionStorage.clear();
});
afterEach(() => vi.unstubAllGlobals());

test('a query omits undefined values and repeats lists', () => {
  const query = { from: undefined, limit: 5, exact: true, filter: ['a=1', 'b=2'], search: 'x y' };
  expect(buildUrl('/p', query)).toBe('/p?limit=5&exact=true&filter=a%3D1&filter=b%3D2&search=x+y');
  expect(buildUrl('/p')).toBe('/p');
});

test('the token of the tab is sent, and only as a header', async () => {
  respond('{}');
  await get('/p');
  expect(new Headers(fetchMock.mock.lastCall?.[1]?.headers).get('authorization')).toBeNull();
  token.set('secret');
  respond('{"n":9223372036854775807}');
  expect(await get('/p', { a: 1 })).toEqual({ n: 9223372036854775807n });
  const [url, options] = fetchMock.mock.lastCall ?? [];
  expect(url).toBe('/p?a=1');
  expect(options?.credentials).toBe('omit');
  expect(new Headers(options?.headers).get('authorization')).toBe('Bearer secret');
});

test('a change sends JSON, and an empty response is undefined', async () => {
  respond('', 200);
  expect(await send('PUT', '/p', { a: 1 })).toBeUndefined();
  const options = fetchMock.mock.lastCall?.[1];
  expect([options?.method, options?.body]).toEqual(['PUT', '{"a":1}']);
  expect(new Headers(options?.headers).get('content-type')).toBe('application/json');
});

test('a rejection becomes a problem with all its fields', async () => {
  respond('{"title":"Bad request","detail":"no such column","hint":"see /tables","problems":["a","b"]}', 400);
  const error = await rejection(get('/p'));
  expect(error).toBeInstanceOf(Problem);
  expect(error).toMatchObject({ status: 400, title: 'Bad request', hint: 'see /tables', problems: ['a', 'b'] });
  expect((error as Problem).message).toBe('no such column');
});

test('a response of a proxy becomes a problem with the text as detail', async () => {
  respond('<html>Bad gateway</html>', 502);
  expect(await rejection(get('/p'))).toMatchObject({
    status: 502,
    title: 'The host answered with status 502',
    detail: '<html>Bad gateway</html>',
  });
});

test('only status 401 reports the token as rejected', async () => {
  const listener = vi.fn();
  token.onRejected(listener);
  respond('{"detail":"forbidden"}', 403);
  await rejection(get('/p'));
  expect(listener).not.toHaveBeenCalled();
  respond('{"detail":"unknown token"}', 401);
  const error = await rejection(get('/p'));
  expect(listener).toHaveBeenCalledWith(error);
});

test('status 503 is a response only where the caller accepts it', async () => {
  respond('{"ready":false}', 503);
  expect((await request('/readyz', { acceptUnavailable: true })).status).toBe(503);
  respond('{}', 503);
  expect(await rejection(request('/p'))).toBeInstanceOf(Problem);
});

test('a network failure is reported as unreachable, an abort as an abort', async () => {
  fetchMock.mockRejectedValueOnce(new TypeError('fetch failed'));
  expect(await rejection(get('/p'))).toBeInstanceOf(Unreachable);
  fetchMock.mockRejectedValueOnce(new DOMException('aborted', 'AbortError'));
  expect(isAbort(await rejection(get('/p')))).toBe(true);
});
