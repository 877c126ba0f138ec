// Who looks: what the host says of itself, whose token this tab has, and what may be done with it.
import { get, Problem } from '../api/client';
import { token } from '../api/token';
import type { Info, WhoAmI } from '../api/types';

class Session {
  info = $state.raw<Info | undefined>();
  who = $state.raw<WhoAmI | undefined>();
  /** Why the sign-in page is shown. */
  refused = $state.raw<Error | undefined>();
  /** Why nothing is known yet. */
  trouble = $state.raw<Error | undefined>();
  readonly operator = $derived(this.who?.role === 'operator');

  constructor() {
    token.onRefused((reason) => {
      this.refused = reason;
    });
  }

  /** Asks the host who it is and who we are. */
  async begin(): Promise<void> {
    try {
      this.info = await get<Info>('/api/v1/info');
      this.who = await get<WhoAmI>('/api/v1/whoami');
      this.refused = undefined;
      this.trouble = undefined;
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      this.trouble = error instanceof Error ? error : new Error(String(error));
    }
  }

  /** Tries a token; keeps it only when the host knows it. */
  async signIn(text: string): Promise<void> {
    const before = token.get();
    token.set(text.trim());
    try {
      this.who = await get<WhoAmI>('/api/v1/whoami');
      this.refused = undefined;
    } catch (error) {
      token.set(before);
      throw error;
    }
  }

  async signOut(): Promise<void> {
    token.set(null);
    this.who = undefined;
    await this.begin();
  }
}

export const session = new Session();
