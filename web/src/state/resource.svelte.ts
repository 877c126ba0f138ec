// A value fetched from the host and kept up to date. While a newer request runs, the last good value stays; when the
// newer request fails, both the value and the error are available.
import { untrack } from 'svelte';
import { isAbort } from '../api/client';

export class Resource<T> {
  value = $state.raw<T | undefined>();
  error = $state.raw<Error | undefined>();
  loading = $state(true);
  /** Arrival time of the value, in milliseconds since 1970. */
  updatedAt = $state(0);
  #fetch: (signal: AbortSignal) => Promise<T>;
  #intervalMs: number | undefined;
  #running: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * Calls `fetch` immediately, again when reactive state that it has read changes, and every `intervalMs` while the page
   * is visible. Create it in a component; it stops with the component.
   */
  constructor(fetch: (signal: AbortSignal) => Promise<T>, intervalMs?: number) {
    this.#fetch = fetch;
    this.#intervalMs = intervalMs;
    $effect(() => {
      this.#load(true);
      return () => this.#stop();
    });
    const onVisibilityChange = () => {
      if (!document.hidden && this.#intervalMs !== undefined && !this.#running) untrack(() => this.#load(false));
    };
    $effect(() => {
      document.addEventListener('visibilitychange', onVisibilityChange);
      return () => document.removeEventListener('visibilitychange', onVisibilityChange);
    });
  }

  /** Fetches now. */
  refresh(): Promise<void> {
    return untrack(() => this.#load(false));
  }

  async #load(showLoading: boolean): Promise<void> {
    this.#stop();
    const running = new AbortController();
    this.#running = running;
    // The effect depends on the state that `fetch` reads before its first await.
    const response = this.#fetch(running.signal);
    if (showLoading) untrack(() => (this.loading = true));
    try {
      const value = await response;
      if (running.signal.aborted) return;
      this.value = value;
      this.error = undefined;
      this.updatedAt = Date.now();
    } catch (error) {
      if (isAbort(error) || running.signal.aborted) return;
      this.error = error instanceof Error ? error : new Error(String(error));
    }
    this.loading = false;
    this.#running = undefined;
    if (this.#intervalMs !== undefined && !document.hidden) {
      this.#timer = setTimeout(() => this.#load(false), this.#intervalMs);
    }
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#running?.abort();
    this.#running = undefined;
  }
}
