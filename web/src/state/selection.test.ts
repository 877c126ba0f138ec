import { expect, test } from 'vitest';
import type { Column } from '../api/types';
import { applyCompletion, completions } from '../parts/completion';
import { formatFilter, parseFilter, parseSearch, toggleFilter } from './selection';

const column = (name: string, role: Column['role'] = 'facet'): Column => ({
  name,
  type: 'text',
  nullable: true,
  role,
  unit: null,
  doc: '',
  hints: {},
});
const COLUMNS = [column('kind'), column('cpu_pct'), column('name'), column('note', null)];

test('filters round-trip in the syntax of the API', () => {
  for (const text of [
    'kind=boot',
    'kind!=boot',
    'cpu_pct>=90',
    'name~two words',
    'name:null',
    'name:set',
    'kind=a=b',
    'name^=x',
  ]) {
    const filter = parseFilter(text);
    expect(filter && formatFilter(filter), text).toBe(text);
  }
  expect(parseFilter('no filter')).toBeUndefined();
  expect(parseFilter('name:nullx')).toBeUndefined();
});

test('the search field is parsed into filters and text', () => {
  const read = (text: string) => parseSearch(text, COLUMNS);
  expect(read('kind:boot')).toEqual({ filters: ['kind=boot'], search: '' });
  expect(read('-kind:boot kernel panic')).toEqual({ filters: ['kind!=boot'], search: 'kernel panic' });
  expect(read('cpu_pct>90 name~"two words"')).toEqual({ filters: ['cpu_pct>90', 'name~two words'], search: '' });
  expect(read('name:null -name:null')).toEqual({ filters: ['name:null', 'name:set'], search: '' });
  expect(read('http://example.org')).toEqual({ filters: [], search: 'http://example.org' });
  expect(read('"kind:boot"')).toEqual({ filters: [], search: '"kind:boot"' });
  expect(read('-"disk full" pan*')).toEqual({ filters: [], search: '-"disk full" pan*' });
  expect(read('note:disk -note:"is full" note.a:1')).toEqual({
    filters: [],
    search: 'note:disk -note:"is full" note.a:1',
  });
  expect(read('note:null note=disk')).toEqual({ filters: ['note:null', 'note=disk'], search: '' });
  expect(read('kind:')).toEqual({ filters: [], search: 'kind:' });
});

test('a filter is toggled', () => {
  expect(toggleFilter(['a=1'], 'b=2')).toEqual(['a=1', 'b=2']);
  expect(toggleFilter(['a=1', 'b=2'], 'a=1')).toEqual(['b=2']);
});

test('columns and values are completed', () => {
  const facets = [
    {
      column: 'kind',
      values: [
        { value: 'log in', count: 3 },
        { value: 'boot', count: 1 },
      ],
      nulls: 0,
      more: false,
      exact: true,
    },
  ];
  expect(completions('free ki', COLUMNS, facets)).toEqual([{ text: 'kind:', note: 'text' }]);
  expect(completions('-kind:lo', COLUMNS, facets)).toEqual([{ text: '-kind:"log in"', note: '3' }]);
  expect(applyCompletion('free ki', { text: 'kind:', note: '' })).toBe('free kind:');
  expect(applyCompletion('free -kind:lo', { text: '-kind:"log in"', note: '' })).toBe('free -kind:"log in" ');
  expect(completions('', COLUMNS, facets)).toEqual([]);
});
