// The token of this tab. It is kept until the tab is closed, and appears in no address.
const KEY = 'lantern.token';

type RejectionListener = (reason: Error) => void;

class Token {
  #listener: RejectionListener = () => {};

  get(): string | null {
    return sessionStorage.getItem(KEY);
  }

  set(text: string | null): void {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  }

  /** Sets the listener for requests that the host rejected because of the token. */
  onRejected(listener: RejectionListener): void {
    this.#listener = listener;
  }

  reject(reason: Error): void {
    this.#listener(reason);
  }
}

export const token = new Token();
