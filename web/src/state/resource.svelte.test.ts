import { flushSync } from 'svelte';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Resource } from './resource.svelte';

interface PendingRequest {
  signal: AbortSignal;
  resolve: (value: string) => void;
  reject: (error: unknown) => void;
}
let requests: PendingRequest[] = [];
let destroy: () => void = () => {};

/** A fetch function whose requests the test completes. */
function fetchPending(signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => requests.push({ signal, resolve, reject }));
}

function create(fetch: (signal: AbortSignal) => Promise<string>, intervalMs?: number): Resource<string> {
  let resource: Resource<string> | undefined;
  destroy = $effect.root(() => {
    resource = new Resource(fetch, intervalMs);
  });
  flushSync();
  if (!resource) throw new Error('the effect root did not run');
  return resource;
}

function request(index: number): PendingRequest {
  const found = requests[index];
  if (!found) throw new Error(`request ${index} was not sent`);
  return found;
}

const settle = () => vi.advanceTimersByTimeAsync(0);
function setHidden(hidden: boolean): void {
  vi.spyOn(document, 'hidden', 'get').mockReturnValue(hidden);
  document.dispatchEvent(new Event('visibilitychange'));
}

beforeEach(() => {
  requests = [];
  vi.useFakeTimers();
});
afterEach(() => {
  destroy();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

test('a resource is fetched on creation', async () => {
  const resource = create(fetchPending);
  expect([resource.loading, resource.value, requests.length]).toEqual([true, undefined, 1]);
  request(0).resolve('first');
  await settle();
  expect([resource.loading, resource.value, resource.updatedAt]).toEqual([false, 'first', Date.now()]);
});

test('a change of state that the fetch reads aborts the old request and sends a new one', async () => {
  let name = $state('a');
  const names: string[] = [];
  const resource = create((signal) => {
    names.push(name);
    return fetchPending(signal);
  });
  name = 'b';
  flushSync();
  expect(names).toEqual(['a', 'b']);
  expect(request(0).signal.aborted).toBe(true);
  request(1).resolve('new');
  request(0).resolve('old');
  await settle();
  expect(resource.value).toBe('new');
});

test('an error keeps the last value, and the next success clears it', async () => {
  const resource = create(fetchPending);
  request(0).resolve('good');
  await settle();
  void resource.refresh();
  request(1).reject('failed');
  await settle();
  expect([resource.value, resource.error?.message, resource.loading]).toEqual(['good', 'failed', false]);
  void resource.refresh();
  request(2).resolve('better');
  await settle();
  expect([resource.value, resource.error]).toEqual(['better', undefined]);
});

test('an aborted request reports no error', async () => {
  const resource = create(fetchPending);
  void resource.refresh();
  request(0).reject(new DOMException('aborted', 'AbortError'));
  await settle();
  expect(resource.error).toBeUndefined();
});

test('a polled resource is fetched at the interval after each response, and not while the page is hidden', async () => {
  create(fetchPending, 1_000);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(requests.length).toBe(1);
  request(0).resolve('1');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(requests.length).toBe(2);
  setHidden(true);
  request(1).resolve('2');
  await vi.advanceTimersByTimeAsync(5_000);
  expect(requests.length).toBe(2);
  setHidden(false);
  expect(requests.length).toBe(3);
});

test('a destroyed resource aborts its request and stops polling', async () => {
  create(fetchPending, 1_000);
  request(0).resolve('1');
  await vi.advanceTimersByTimeAsync(1_000);
  destroy();
  expect(request(1).signal.aborted).toBe(true);
  await vi.advanceTimersByTimeAsync(5_000);
  setHidden(false);
  expect(requests.length).toBe(2);
});
