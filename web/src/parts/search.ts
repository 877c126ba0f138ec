// What the search bar offers while somebody types: columns, and values of facets.
import type { Column, Facet } from '../api/types';

export interface Offer {
  /** What replaces the last word. */
  text: string;
  note: string;
}

const MOST = 8;

/** Offers for the last word of what is typed. */
export function offers(typed: string, columns: readonly Column[], facets: readonly Facet[]): Offer[] {
  const word = lastWord(typed);
  const match = /^(-?)([A-Za-z_][A-Za-z0-9_]*):(.*)$/s.exec(word);
  if (match) {
    const [, not = '', name = '', begun = ''] = match;
    const facet = facets.find((one) => one.column === name);
    const wanted = begun.replace(/^"/, '').toLowerCase();
    return (facet?.values ?? [])
      .filter((one) => String(one.value).toLowerCase().includes(wanted))
      .slice(0, MOST)
      .map((one) => ({ text: `${not}${name}:${quoted(String(one.value))}`, note: String(one.count) }));
  }
  const not = word.startsWith('-') ? '-' : '';
  const wanted = word.slice(not.length).toLowerCase();
  if (!wanted) return [];
  return columns
    .filter((column) => column.name.toLowerCase().includes(wanted))
    .slice(0, MOST)
    .map((column) => ({ text: `${not}${column.name}:`, note: column.type }));
}

export function lastWord(typed: string): string {
  return /(?:[^\s"]|"[^"]*"?)*$/.exec(typed)?.[0] ?? '';
}

export function withOffer(typed: string, offer: Offer): string {
  const rest = typed.slice(0, typed.length - lastWord(typed).length);
  return `${rest}${offer.text}${offer.text.endsWith(':') ? '' : ' '}`;
}

function quoted(value: string): string {
  return /[\s"]/.test(value) ? `"${value.replaceAll('"', '')}"` : value;
}
