// The selection of a table: filters, free text and time range. The page's address uses the syntax of the API, so this
// module only parses and changes text.
import type { Column } from '../api/types';

export type Operator = '=' | '!=' | '<' | '<=' | '>' | '>=' | '~' | '!~' | '^=' | ':null' | ':set';

export interface Filter {
  column: string;
  operator: Operator;
  value: string;
}

const FILTER = /^([A-Za-z_][A-Za-z0-9_]*)(:null$|:set$|!=|<=|>=|!~|\^=|=|<|>|~)([\s\S]*)$/;

/** Parses `kind=boot`; undefined if it is not a filter. */
export function parseFilter(text: string): Filter | undefined {
  const match = FILTER.exec(text);
  if (!match?.[1] || !match[2]) return undefined;
  return { column: match[1], operator: match[2] as Operator, value: match[3] ?? '' };
}

export function formatFilter(filter: Filter): string {
  return `${filter.column}${filter.operator}${filter.value}`;
}

const OPERATOR_LABELS: Record<Operator, string> = {
  '=': 'is',
  '!=': 'is not',
  '<': '<',
  '<=': '≤',
  '>': '>',
  '>=': '≥',
  '~': 'contains',
  '!~': 'does not contain',
  '^=': 'starts with',
  ':null': 'is empty',
  ':set': 'is set',
};

export function operatorLabel(operator: Operator): string {
  return OPERATOR_LABELS[operator];
}

/** Adds a filter, or removes it if it is present. */
export function toggleFilter(filters: readonly string[], filter: string): string[] {
  return filters.includes(filter) ? filters.filter((one) => one !== filter) : [...filters, filter];
}

/**
 * Parses the search field: `kind:boot`, `-kind:boot`, `cpu_pct>90` and `name~"two words"` are filters if the column
 * exists; everything else is a search in the language of the API. `note:word` is a search if the column holds text and
 * has no role, because its values are too long to be compared as a whole.
 */
export function parseSearch(text: string, columns: readonly Column[]): { filters: string[]; search: string } {
  const filters: string[] = [];
  const rest: string[] = [];
  for (const word of splitWords(text)) {
    const filter = word.quoted ? undefined : parseWord(word.text, columns);
    if (filter) filters.push(filter);
    else rest.push(word.quoted ? `"${word.text}"` : word.text);
  }
  return { filters, search: rest.join(' ') };
}

const SEARCH_FILTER = /^(-?)([A-Za-z_][A-Za-z0-9_]*)(!=|<=|>=|!~|\^=|:|=|<|>|~)([\s\S]*)$/;

function parseWord(text: string, columns: readonly Column[]): string | undefined {
  const match = SEARCH_FILTER.exec(text);
  const column = columns.find((one) => one.name === match?.[2]);
  if (!match || !column) return undefined;
  const [, not, name, sign] = match;
  const value = unquote(match[4] ?? '');
  if (value === '' && sign === ':') return undefined;
  const isProse = column.role === null && (column.type === 'text' || column.type === 'json');
  if (isProse && sign === ':' && value !== 'null' && value !== 'set') return undefined;
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
  const negated = opposite[operator ?? ''];
  return negated ? `${name}${negated}${value}` : undefined;
}

function unquote(text: string): string {
  return /^".*"$/s.test(text) ? text.slice(1, -1) : text;
}

/** Splits at spaces outside of quotes. */
function splitWords(text: string): { text: string; quoted: boolean }[] {
  const found = text.matchAll(/"([^"]*)"|(?:[^\s"]|"[^"]*")+/g);
  return [...found].map((match) => ({ text: match[1] ?? match[0], quoted: match[1] !== undefined }));
}

/** The selection parameters of the page's query. */
export function selectionOf(query: URLSearchParams): Record<string, string | string[] | undefined> {
  return {
    filter: query.getAll('filter'),
    search: query.get('search') || undefined,
    from: query.get('from') || undefined,
    to: query.get('to') || undefined,
  };
}
