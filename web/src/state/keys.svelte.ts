// Single keys. They are off while somebody types, and can be switched off for good.
import { here } from './here.svelte';
import { preferences } from './preferences.svelte';

export interface Shortcut {
  keys: string;
  what: string;
}

const PLACES: Record<string, string> = {
  o: '/',
  t: '/timeline',
  d: '/dead-letters',
  p: '/plugins',
  a: '/audit',
  s: '/sql',
};

/** What `?` lists. */
export const SHORTCUTS: readonly Shortcut[] = [
  { keys: '?', what: 'this list' },
  { keys: '/', what: 'search' },
  { keys: 'j k', what: 'next and previous row' },
  { keys: 'Enter', what: 'open the row' },
  { keys: 'Esc', what: 'close what is open' },
  { keys: 'g o', what: 'go to the overview' },
  { keys: 'g t', what: 'go to the timeline' },
  { keys: 'g d', what: 'go to the dead letters' },
  { keys: 'g p', what: 'go to the plugins' },
  { keys: 'g a', what: 'go to the audit' },
  { keys: 's', what: 'stop or go on with a live tail' },
  { keys: 'u', what: 'local time or UTC' },
];

type Act = (event: KeyboardEvent) => void;

class Keys {
  help = $state(false);
  #acts = new Map<string, Act>();
  #afterG = false;

  constructor() {
    document.addEventListener('keydown', (event) => this.#pressed(event));
  }

  /** Takes a key for as long as a component lives; answers what gives it back. */
  on(key: string, act: Act): () => void {
    this.#acts.set(key, act);
    return () => {
      if (this.#acts.get(key) === act) this.#acts.delete(key);
    };
  }

  #pressed(event: KeyboardEvent): void {
    if (!preferences.keys || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (typing(event.target) || document.querySelector('dialog[open]')) return;
    if (this.#afterG) {
      this.#afterG = false;
      const place = PLACES[event.key];
      if (place) {
        event.preventDefault();
        here.go(place);
      }
      return;
    }
    if (event.key === 'g') this.#afterG = true;
    else if (event.key === '?') this.help = true;
    else if (event.key === 'u') preferences.setZone(preferences.zone === 'utc' ? 'local' : 'utc');
    else {
      const act = this.#acts.get(event.key);
      if (!act) return;
      act(event);
    }
    event.preventDefault();
  }
}

function typing(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLInputElement ||
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement ||
    (target instanceof HTMLElement && target.isContentEditable)
  );
}

export const keys = new Keys();
