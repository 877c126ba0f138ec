// An answer of the host that is kept up to date. The last good answer stays while a newer one is on its way, and when
// the newer one is an error both are there.
import { untrack } from 'svelte';
import { isAbort } from '../api/client';

export class Asked<T> {
  value = $state.raw<T | undefined>();
  error = $state.raw<Error | undefined>();
  loading = $state(true);
  /** When the value came, in milliseconds since 1970. */
  at = $state(0);
  #ask: (signal: AbortSignal) => Promise<T>;
  #every: number | undefined;
  #running: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * `ask` is called at once, again when something changes that it has read, and every `every` milliseconds while the page is
   * seen. To be made in a component, with which it ends.
   */
  constructor(ask: (signal: AbortSignal) => Promise<T>, every?: number) {
    this.#ask = ask;
    this.#every = every;
    $effect(() => {
      this.#go(true);
      return () => this.#stop();
    });
    const seen = () => {
      if (!document.hidden && this.#every !== undefined && !this.#running) untrack(() => this.#go(false));
    };
    $effect(() => {
      document.addEventListener('visibilitychange', seen);
      return () => document.removeEventListener('visibilitychange', seen);
    });
  }

  /** Asks now. */
  again(): Promise<void> {
    return untrack(() => this.#go(false));
  }

  async #go(changed: boolean): Promise<void> {
    this.#stop();
    const running = new AbortController();
    this.#running = running;
    // What `ask` reads before its first wait is what the effect depends on.
    const answer = this.#ask(running.signal);
    if (changed) untrack(() => (this.loading = true));
    try {
      const value = await answer;
      if (running.signal.aborted) return;
      this.value = value;
      this.error = undefined;
      this.at = Date.now();
    } catch (error) {
      if (isAbort(error) || running.signal.aborted) return;
      this.error = error instanceof Error ? error : new Error(String(error));
    }
    this.loading = false;
    this.#running = undefined;
    if (this.#every !== undefined && !document.hidden) {
      this.#timer = setTimeout(() => this.#go(false), this.#every);
    }
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#running?.abort();
    this.#running = undefined;
  }
}
