// The session of this tab: host information, the identity of the token, and its permissions.
import { get, Problem } from '../api/client';
import { token } from '../api/token';
import type { Info, WhoAmI } from '../api/types';

class Session {
  info = $state.raw<Info | undefined>();
  identity = $state.raw<WhoAmI | undefined>();
  /** Why the sign-in page is shown. */
  rejection = $state.raw<Error | undefined>();
  /** Why the session could not be loaded. */
  error = $state.raw<Error | undefined>();
  readonly isOperator = $derived(this.identity?.role === 'operator');

  constructor() {
    token.onRejected((reason) => {
      this.rejection = reason;
    });
  }

  /** Loads the host information and the identity. */
  async load(): Promise<void> {
    try {
      this.info = await get<Info>('/api/v1/info');
      this.identity = await get<WhoAmI>('/api/v1/whoami');
      this.rejection = undefined;
      this.error = undefined;
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      this.error = error instanceof Error ? error : new Error(String(error));
    }
  }

  /** Tries a token, and keeps it only when the host accepts it. */
  async signIn(text: string): Promise<void> {
    const before = token.get();
    token.set(text.trim());
    try {
      this.identity = await get<WhoAmI>('/api/v1/whoami');
      this.rejection = undefined;
    } catch (error) {
      token.set(before);
      throw error;
    }
  }

  async signOut(): Promise<void> {
    token.set(null);
    this.identity = undefined;
    await this.load();
  }
}

export const session = new Session();
