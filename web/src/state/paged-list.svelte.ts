// The items of a list that the host returns in pages. The next page is loaded when the reader comes near the end.
import { untrack } from 'svelte';
import { isAbort } from '../api/client';
import type { Page } from '../api/types';

export class PagedList<T> {
  items = $state.raw<T[]>([]);
  error = $state.raw<Error | undefined>();
  loading = $state(true);
  /** Whether the last page is loaded. */
  complete = $state(false);
  #cursor: string | undefined;
  #running: AbortController | undefined;
  #fetch: (cursor: string | undefined, signal: AbortSignal) => Promise<Page<T>>;

  /**
   * Loads the first page, and again when reactive state that `fetch` has read changes. Create it in a component; it
   * stops with the component.
   */
  constructor(fetch: (cursor: string | undefined, signal: AbortSignal) => Promise<Page<T>>) {
    this.#fetch = fetch;
    $effect(() => {
      this.#loadFirst();
      return () => this.#running?.abort();
    });
  }

  /** Discards the items and loads the first page. */
  refresh(): void {
    untrack(() => this.#loadFirst());
  }

  loadMore(): void {
    untrack(() => {
      if (!this.loading && !this.complete && !this.error) this.#load(this.#cursor);
    });
  }

  retry(): void {
    untrack(() => {
      this.error = undefined;
      this.#load(this.#cursor);
    });
  }

  #loadFirst(): void {
    this.#cursor = undefined;
    this.#load(undefined);
  }

  async #load(cursor: string | undefined): Promise<void> {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    // The effect depends on the state that `fetch` reads before its first await.
    const response = this.#fetch(cursor, running.signal);
    untrack(() => (this.loading = true));
    try {
      const page = await response;
      if (running.signal.aborted) return;
      this.items = cursor === undefined ? page.items : this.items.concat(page.items);
      this.#cursor = page.next_cursor ?? undefined;
      this.complete = page.next_cursor === null;
      this.error = undefined;
      // An empty page with a cursor means that the host has scanned its limit of rows without a match.
      if (page.items.length === 0 && !this.complete) {
        await this.#load(this.#cursor);
        return;
      }
    } catch (error) {
      if (isAbort(error) || running.signal.aborted) return;
      this.error = error instanceof Error ? error : new Error(String(error));
      if (cursor === undefined) this.items = [];
    }
    this.loading = false;
  }
}
