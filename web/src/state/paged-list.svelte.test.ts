import { flushSync } from 'svelte';
import { afterEach, expect, test, vi } from 'vitest';
import type { Page } from '../api/types';
import { PagedList } from './paged-list.svelte';

let destroy: () => void = () => {};
afterEach(() => destroy());

function create(fetch: (cursor: string | undefined) => Promise<Page<number>>): PagedList<number> {
  let list: PagedList<number> | undefined;
  destroy = $effect.root(() => {
    list = new PagedList(fetch);
  });
  flushSync();
  if (!list) throw new Error('the effect root did not run');
  return list;
}
const page = (items: number[], next_cursor: string | null): Page<number> => ({ items, next_cursor });

test('pages are appended until the last one', async () => {
  const pages: Record<string, Page<number>> = { first: page([1, 2], 'b'), b: page([3], null) };
  const cursors: (string | undefined)[] = [];
  const list = create(async (cursor) => {
    cursors.push(cursor);
    return pages[cursor ?? 'first'] ?? page([], null);
  });
  await vi.waitFor(() => expect([list.items, list.complete]).toEqual([[1, 2], false]));
  list.loadMore();
  await vi.waitFor(() => expect([list.items, list.complete]).toEqual([[1, 2, 3], true]));
  list.loadMore();
  expect(cursors).toEqual([undefined, 'b']);
});

test('an empty page with a cursor is followed by the next page', async () => {
  const pages: Record<string, Page<number>> = { first: page([], 'b'), b: page([], 'c'), c: page([7], null) };
  const list = create(async (cursor) => pages[cursor ?? 'first'] ?? page([], null));
  await vi.waitFor(() => expect([list.items, list.complete, list.loading]).toEqual([[7], true, false]));
});

test('a failed page keeps the items, stops loading, and is retried on request', async () => {
  let broken = true;
  const list = create(async (cursor) => {
    if (cursor === undefined) return page([1], 'b');
    if (broken) throw new Error('no connection');
    return page([2], null);
  });
  await vi.waitFor(() => expect(list.items).toEqual([1]));
  list.loadMore();
  await vi.waitFor(() => expect(list.error?.message).toBe('no connection'));
  expect([list.items, list.loading]).toEqual([[1], false]);
  broken = false;
  list.loadMore();
  expect(list.loading).toBe(false);
  list.retry();
  await vi.waitFor(() => expect([list.items, list.error]).toEqual([[1, 2], undefined]));
});

test('a change of state that the fetch reads starts again with the first page', async () => {
  let filter = $state(1);
  const list = create(async () => page([filter], null));
  await vi.waitFor(() => expect(list.items).toEqual([1]));
  filter = 2;
  flushSync();
  await vi.waitFor(() => expect(list.items).toEqual([2]));
});
