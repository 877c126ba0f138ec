import { beforeEach, expect, test, vi } from 'vitest';
import { formatQuery, router } from './router.svelte';

beforeEach(() => {
  document.body.innerHTML = '';
  vi.stubGlobal('scrollTo', vi.fn());
  router.navigate('/start');
});

/** Clicks a link, and returns whether the router handled the click. */
function click(html: string, init: MouseEventInit = {}): boolean {
  document.body.innerHTML = html;
  const event = new MouseEvent('click', { bubbles: true, cancelable: true, ...init });
  // The last listener: it prevents the navigation that happy-dom would start.
  let handled = false;
  const observe = (observed: Event) => {
    handled = observed.defaultPrevented;
    observed.preventDefault();
  };
  addEventListener('click', observe, { once: true });
  document.querySelector('a')?.dispatchEvent(event);
  return handled;
}

test('navigation changes path and query, and counts only changes of the path', () => {
  const before = router.navigations;
  router.navigate('/tables/events?filter=kind=boot');
  expect([router.path, router.get('filter')]).toEqual(['/tables/events', 'kind=boot']);
  expect(router.navigations).toBe(before + 1);
  router.navigate('/tables/events?filter=kind=logon');
  expect(router.get('filter')).toBe('kind=logon');
  expect(router.navigations).toBe(before + 1);
});

test('query changes set, repeat and remove parameters and keep the others', () => {
  router.navigate('/t?from=now-1h&filter=a=1&row=7');
  expect(router.hrefWith({ filter: ['a=1', 'b=2'], row: undefined })).toBe('/t?from=now-1h&filter=a=1&filter=b=2');
  expect(router.hrefWith({ filter: [] })).toBe('/t?from=now-1h&row=7');
  router.setQuery({ from: undefined, row: undefined }, true);
  expect([router.search, router.getAll('filter')]).toEqual(['?filter=a=1', ['a=1']]);
});

test('a formatted query stays readable and parses to the same parameters', () => {
  const query = new URLSearchParams({ from: '2026-11-21T10:00:00Z', filter: 'kind=a,b', search: 'a&b' });
  expect(formatQuery(query)).toBe('?from=2026-11-21T10:00:00Z&filter=kind=a,b&search=a%26b');
  expect(new URLSearchParams(formatQuery(query)).toString()).toBe(query.toString());
  expect(formatQuery(new URLSearchParams())).toBe('');
});

test('clicks on links within the dashboard navigate without a page load', () => {
  expect(click('<a href="/gaps?plugin=x">Gaps</a>')).toBe(true);
  expect([router.path, router.search]).toEqual(['/gaps', '?plugin=x']);
});

test('other clicks are left to the browser', () => {
  expect(click('<a href="/api/v1/docs">API</a>')).toBe(false);
  expect(click('<a href="/metrics">Metrics</a>')).toBe(false);
  expect(click('<a href="https://example.org/gaps">Other origin</a>')).toBe(false);
  expect(click('<a href="#main">Anchor</a>')).toBe(false);
  expect(click('<a href="/gaps" target="_blank">New tab</a>')).toBe(false);
  expect(click('<a href="/gaps" download>File</a>')).toBe(false);
  expect(click('<a href="/gaps">Gaps</a>', { ctrlKey: true })).toBe(false);
  expect(click('<a href="/gaps">Gaps</a>', { button: 1 })).toBe(false);
  expect(router.path).toBe('/start');
});
