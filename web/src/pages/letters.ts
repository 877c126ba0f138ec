// Dead letters, grouped by what they have in common: the plugin that could not read them, and why.
import type { DeadLetter } from '../api/types';

export interface Reason {
  words: string;
  letters: DeadLetter[];
}

export interface Group {
  key: string;
  plugin: string;
  source: string;
  class: string;
  letters: DeadLetter[];
  reasons: Reason[];
}

/** The reason without what differs from message to message: numbers and quoted text. */
export function pattern(reason: string): string {
  return reason
    .replace(/"[^"]*"|`[^`]*`|'[^']*'/g, '“…”')
    .replace(/\b\d{4}-\d\d-\d\dT[\d:.]+Z?/g, '#')
    .replace(/\b\d[\d.]*\b/g, '#')
    .slice(0, 200);
}

/** The largest group first; within it, the most frequent reason first. */
export function groups(letters: readonly DeadLetter[]): Group[] {
  const by = new Map<string, Group>();
  for (const letter of letters) {
    const key = `${letter.plugin}/${letter.source}/${letter.class}`;
    const group = by.get(key) ?? {
      key,
      plugin: letter.plugin,
      source: letter.source,
      class: letter.class,
      letters: [],
      reasons: [],
    };
    by.set(key, group);
    group.letters.push(letter);
    const words = pattern(letter.reason);
    const reason = group.reasons.find((one) => one.words === words);
    if (reason) reason.letters.push(letter);
    else group.reasons.push({ words, letters: [letter] });
  }
  const sorted = [...by.values()].sort((a, b) => b.letters.length - a.letters.length);
  for (const group of sorted) group.reasons.sort((a, b) => b.letters.length - a.letters.length);
  return sorted;
}
