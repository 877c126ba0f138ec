// What this browser remembers: the look, the zone, single keys, views that were saved. Without a storage it forgets.
import type { Zone } from '../format/time';

export type Theme = 'system' | 'light' | 'dark';

export interface SavedView {
  name: string;
  table: string;
  query: string;
}

const KEY = 'lantern.preferences';

interface Kept {
  theme: Theme;
  zone: Zone;
  keys: boolean;
  views: SavedView[];
}

class Preferences {
  theme = $state<Theme>('system');
  zone = $state<Zone>('local');
  keys = $state(true);
  views = $state.raw<SavedView[]>([]);

  constructor() {
    const kept = read();
    if (kept.theme === 'light' || kept.theme === 'dark') this.theme = kept.theme;
    if (kept.zone === 'utc') this.zone = 'utc';
    if (kept.keys === false) this.keys = false;
    if (Array.isArray(kept.views)) this.views = kept.views;
  }

  apply(): void {
    if (this.theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.apply();
    this.#keep();
  }

  setZone(zone: Zone): void {
    this.zone = zone;
    this.#keep();
  }

  setKeys(keys: boolean): void {
    this.keys = keys;
    this.#keep();
  }

  saveView(view: SavedView): void {
    const others = this.views.filter((one) => one.table !== view.table || one.name !== view.name);
    this.views = [...others, view];
    this.#keep();
  }

  forgetView(view: SavedView): void {
    this.views = this.views.filter((one) => one !== view);
    this.#keep();
  }

  #keep(): void {
    const kept: Kept = { theme: this.theme, zone: this.zone, keys: this.keys, views: this.views };
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
    } catch (error) {
      console.warn('this browser keeps nothing, so the choice is for this visit', error);
    }
  }
}

function read(): Partial<Kept> {
  try {
    return (JSON.parse(localStorage.getItem(KEY) ?? '{}') ?? {}) as Partial<Kept>;
  } catch {
    return {};
  }
}

export const preferences = new Preferences();
