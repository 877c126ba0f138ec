// Preferences stored in this browser: theme, time zone, shortcuts and saved views. Without storage they last for the visit.
import type { Zone } from '../format/time';

export type Theme = 'system' | 'light' | 'dark';

export interface SavedView {
  name: string;
  table: string;
  query: string;
}

const KEY = 'lantern.preferences';

interface Stored {
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
    const stored = load();
    if (stored.theme === 'light' || stored.theme === 'dark') this.theme = stored.theme;
    if (stored.zone === 'utc') this.zone = 'utc';
    if (stored.keys === false) this.keys = false;
    if (Array.isArray(stored.views)) this.views = stored.views;
  }

  apply(): void {
    if (this.theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.theme;
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.apply();
    this.#save();
  }

  setZone(zone: Zone): void {
    this.zone = zone;
    this.#save();
  }

  setKeys(keys: boolean): void {
    this.keys = keys;
    this.#save();
  }

  saveView(view: SavedView): void {
    const others = this.views.filter((one) => one.table !== view.table || one.name !== view.name);
    this.views = [...others, view];
    this.#save();
  }

  deleteView(view: SavedView): void {
    this.views = this.views.filter((one) => one !== view);
    this.#save();
  }

  #save(): void {
    const stored: Stored = { theme: this.theme, zone: this.zone, keys: this.keys, views: this.views };
    try {
      localStorage.setItem(KEY, JSON.stringify(stored));
    } catch (error) {
      console.warn('cannot store preferences in this browser; they apply to this visit only', error);
    }
  }
}

function load(): Partial<Stored> {
  try {
    return (JSON.parse(localStorage.getItem(KEY) ?? '{}') ?? {}) as Partial<Stored>;
  } catch {
    return {};
  }
}

export const preferences = new Preferences();
