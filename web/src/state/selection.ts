// What of a table is looked at: filters, free text and time range. They stand in the page's address exactly as the API
// takes them, so this only reads and changes text.
import type { Column } from '../api/types';

export type Operator = '=' | '!=' | '<' | '<=' | '>' | '>=' | '~' | '!~' | '^=' | ':null' | ':set';

export interface Filter {
  column: string;
  operator: Operator;
  value: string;
}

const FILTER = /^([A-Za-z_][A-Za-z0-9_]*)(:null$|:set$|!=|<=|>=|!~|\^=|=|<|>|~)([\s\S]*)$/;

/** Reads `kind=boot`; none when it is no filter. */
export function readFilter(text: string): Filter | undefined {
  const match = FILTER.exec(text);
  if (!match?.[1] || !match[2]) return undefined;
  return { column: match[1], operator: match[2] as Operator, value: match[3] ?? '' };
}

export function writeFilter(filter: Filter): string {
  return `${filter.column}${filter.operator}${filter.value}`;
}

const WORDS: Record<Operator, string> = {
  '=': 'is',
  '!=': 'is not',
  '<': '<',
  '<=': '≤',
  '>': '>',
  '>=': '≥',
  '~': 'contains',
  '!~': 'does not contain',
  '^=': 'begins with',
  ':null': 'is empty',
  ':set': 'is set',
};

export function operatorWords(operator: Operator): string {
  return WORDS[operator];
}

/** Adds a filter that is not there, or takes away one that is. */
export function toggled(filters: readonly string[], filter: string): string[] {
  return filters.includes(filter) ? filters.filter((one) => one !== filter) : [...filters, filter];
}

/**
 * Reads what somebody typed: `kind:boot`, `-kind:boot`, `cpu_pct>90`, `name~"two words"` are filters when the column is
 * there; everything else is text to be searched.
 */
export function readSearch(text: string, columns: readonly Column[]): { filters: string[]; search: string } {
  const filters: string[] = [];
  const rest: string[] = [];
  for (const word of words(text)) {
    const filter = word.quoted ? undefined : readWord(word.text, columns);
    if (filter) filters.push(filter);
    else rest.push(word.text);
  }
  return { filters, search: rest.join(' ') };
}

const TYPED = /^(-?)([A-Za-z_][A-Za-z0-9_]*)(!=|<=|>=|!~|\^=|:|=|<|>|~)([\s\S]*)$/;

function readWord(text: string, columns: readonly Column[]): string | undefined {
  const match = TYPED.exec(text);
  const column = columns.find((one) => one.name === match?.[2]);
  if (!match || !column) return undefined;
  const [, not, name, sign] = match;
  const value = unquoted(match[4] ?? '');
  if (value === '' && sign === ':') return undefined;
  if (sign === ':' && (value === 'null' || value === 'set')) {
    const word = (value === 'null') === (not === '') ? 'null' : 'set';
    return `${name}:${word}`;
  }
  const operator = sign === ':' ? '=' : sign;
  if (not === '') return `${name}${operator}${value}`;
  const opposite: Record<string, string> = {
    '=': '!=',
    '!=': '=',
    '~': '!~',
    '!~': '~',
    '<': '>=',
    '>': '<=',
    '<=': '>',
    '>=': '<',
  };
  const against = opposite[operator ?? ''];
  return against ? `${name}${against}${value}` : undefined;
}

function unquoted(text: string): string {
  return /^".*"$/s.test(text) ? text.slice(1, -1) : text;
}

/** Splits at spaces, but not within quotes. */
function words(text: string): { text: string; quoted: boolean }[] {
  const found = text.matchAll(/"([^"]*)"|(?:[^\s"]|"[^"]*")+/g);
  return [...found].map((match) => ({ text: match[1] ?? match[0], quoted: match[1] !== undefined }));
}

/** The part of the page's query that the API takes for a selection. */
export function selectionOf(query: URLSearchParams): Record<string, string | string[] | undefined> {
  return {
    filter: query.getAll('filter'),
    search: query.get('search') || undefined,
    from: query.get('from') || undefined,
    to: query.get('to') || undefined,
  };
}
