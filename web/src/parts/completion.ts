// Completions of the search field: columns, and values of facets.
import type { Column, Facet } from '../api/types';

export interface Completion {
  /** Replacement of the last word. */
  text: string;
  note: string;
}

const COMPLETIONS_MAX = 8;

/** Completions of the last word. */
export function completions(typed: string, columns: readonly Column[], facets: readonly Facet[]): Completion[] {
  const word = lastWord(typed);
  const match = /^(-?)([A-Za-z_][A-Za-z0-9_]*):(.*)$/s.exec(word);
  if (match) {
    const [, not = '', name = '', prefix = ''] = match;
    const facet = facets.find((one) => one.column === name);
    const wanted = prefix.replace(/^"/, '').toLowerCase();
    return (facet?.values ?? [])
      .filter((one) => String(one.value).toLowerCase().includes(wanted))
      .slice(0, COMPLETIONS_MAX)
      .map((one) => ({ text: `${not}${name}:${quoted(String(one.value))}`, note: String(one.count) }));
  }
  const not = word.startsWith('-') ? '-' : '';
  const wanted = word.slice(not.length).toLowerCase();
  if (!wanted) return [];
  return columns
    .filter((column) => column.name.toLowerCase().includes(wanted))
    .slice(0, COMPLETIONS_MAX)
    .map((column) => ({ text: `${not}${column.name}:`, note: column.type }));
}

export function lastWord(typed: string): string {
  return /(?:[^\s"]|"[^"]*"?)*$/.exec(typed)?.[0] ?? '';
}

export function applyCompletion(typed: string, completion: Completion): string {
  const rest = typed.slice(0, typed.length - lastWord(typed).length);
  return `${rest}${completion.text}${completion.text.endsWith(':') ? '' : ' '}`;
}

function quoted(value: string): string {
  return /[\s"]/.test(value) ? `"${value.replaceAll('"', '')}"` : value;
}
