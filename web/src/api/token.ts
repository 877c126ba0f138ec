// The token of this tab. It is kept until the tab is closed, and stands in no address.
const KEY = 'lantern.token';

type Refused = (reason: Error) => void;

class Token {
  #listener: Refused = () => {};

  get(): string | null {
    return sessionStorage.getItem(KEY);
  }

  set(text: string | null): void {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  }

  /** Who wants to know that a request needs another token. */
  onRefused(listener: Refused): void {
    this.#listener = listener;
  }

  refused(reason: Error): void {
    this.#listener(reason);
  }
}

export const token = new Token();
