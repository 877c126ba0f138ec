// The rows of a list that comes in pages: the next page is asked for when somebody comes near its end.
import { untrack } from 'svelte';
import { isAbort } from '../api/client';
import type { Page } from '../api/types';

export class Pages<T> {
  items = $state.raw<T[]>([]);
  error = $state.raw<Error | undefined>();
  loading = $state(true);
  /** Whether the last page is here. */
  whole = $state(false);
  #cursor: string | undefined;
  #running: AbortController | undefined;
  #ask: (cursor: string | undefined, signal: AbortSignal) => Promise<Page<T>>;

  /** `ask` begins anew whenever something changes that it has read. To be made in a component, with which it ends. */
  constructor(ask: (cursor: string | undefined, signal: AbortSignal) => Promise<Page<T>>) {
    this.#ask = ask;
    $effect(() => {
      this.#begin();
      return () => this.#running?.abort();
    });
  }

  /** Throws away what is there and begins anew. */
  again(): void {
    untrack(() => this.#begin());
  }

  more(): void {
    untrack(() => {
      if (!this.loading && !this.whole && !this.error) this.#load(this.#cursor);
    });
  }

  retry(): void {
    untrack(() => {
      this.error = undefined;
      this.#load(this.#cursor);
    });
  }

  #begin(): void {
    this.#cursor = undefined;
    this.#load(undefined);
  }

  async #load(cursor: string | undefined): Promise<void> {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    // What `ask` reads before its first wait is what the effect depends on.
    const answer = this.#ask(cursor, running.signal);
    untrack(() => (this.loading = true));
    try {
      const page = await answer;
      if (running.signal.aborted) return;
      this.items = cursor === undefined ? page.items : this.items.concat(page.items);
      this.#cursor = page.next_cursor ?? undefined;
      this.whole = page.next_cursor === null;
      this.error = undefined;
      // A page without a row says only how far was looked.
      if (page.items.length === 0 && !this.whole) {
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
