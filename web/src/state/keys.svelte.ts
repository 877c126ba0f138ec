// Keyboard shortcuts of single keys. They are ignored in text fields, and can be disabled.

import { preferences } from './preferences.svelte';
import { router } from './router.svelte';

export interface Shortcut {
  keys: string;
  action: string;
}

const PAGES: Record<string, string> = {
  o: '/',
  t: '/timeline',
  d: '/dead-letters',
  p: '/plugins',
  a: '/audit',
  s: '/sql',
};

/** The shortcuts that `?` lists. */
export const SHORTCUTS: readonly Shortcut[] = [
  { keys: '?', action: 'show the shortcuts' },
  { keys: '/', action: 'search' },
  { keys: 'j k', action: 'next and previous row' },
  { keys: 'Enter', action: 'open the row' },
  { keys: 'Esc', action: 'close' },
  { keys: 'g o', action: 'go to the overview' },
  { keys: 'g t', action: 'go to the timeline' },
  { keys: 'g d', action: 'go to the dead letters' },
  { keys: 'g p', action: 'go to the plugins' },
  { keys: 'g a', action: 'go to the audit log' },
  { keys: 's', action: 'pause or resume the live view' },
  { keys: 'u', action: 'switch between local time and UTC' },
];

type Handler = (event: KeyboardEvent) => void;

class Keys {
  help = $state(false);
  #handlers = new Map<string, Handler>();
  #afterG = false;

  constructor() {
    document.addEventListener('keydown', (event) => this.#onKeyDown(event));
  }

  /** Registers a key, and returns the function that removes it. Use it in an effect. */
  on(key: string, handler: Handler): () => void {
    this.#handlers.set(key, handler);
    return () => {
      if (this.#handlers.get(key) === handler) this.#handlers.delete(key);
    };
  }

  #onKeyDown(event: KeyboardEvent): void {
    if (!preferences.keys || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (isTextField(event.target) || document.querySelector('dialog[open]')) return;
    if (this.#afterG) {
      this.#afterG = false;
      const page = PAGES[event.key];
      if (page) {
        event.preventDefault();
        router.navigate(page);
      }
      return;
    }
    if (event.key === 'g') this.#afterG = true;
    else if (event.key === '?') this.help = true;
    else if (event.key === 'u') preferences.setZone(preferences.zone === 'utc' ? 'local' : 'utc');
    else {
      const handler = this.#handlers.get(event.key);
      if (!handler) return;
      handler(event);
    }
    event.preventDefault();
  }
}

function isTextField(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLInputElement ||
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement ||
    (target instanceof HTMLElement && target.isContentEditable)
  );
}

export const keys = new Keys();
