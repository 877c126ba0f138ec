import { expect, test } from 'vitest';
import type { Column } from '../api/types';
import { offers, withOffer } from '../parts/search';
import { readFilter, readSearch, toggled, writeFilter } from './selection';

const column = (name: string): Column => ({
  name,
  type: 'text',
  nullable: true,
  role: null,
  unit: null,
  doc: '',
  hints: {},
});
const COLUMNS = ['kind', 'cpu_pct', 'name'].map(column);

test('filters are read and written as the API has them', () => {
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
    const filter = readFilter(text);
    expect(filter && writeFilter(filter), text).toBe(text);
  }
  expect(readFilter('no filter')).toBeUndefined();
  expect(readFilter('name:nullx')).toBeUndefined();
});

test('what is typed becomes filters and text', () => {
  const read = (text: string) => readSearch(text, COLUMNS);
  expect(read('kind:boot')).toEqual({ filters: ['kind=boot'], search: '' });
  expect(read('-kind:boot kernel panic')).toEqual({ filters: ['kind!=boot'], search: 'kernel panic' });
  expect(read('cpu_pct>90 name~"two words"')).toEqual({ filters: ['cpu_pct>90', 'name~two words'], search: '' });
  expect(read('name:null -name:null')).toEqual({ filters: ['name:null', 'name:set'], search: '' });
  expect(read('http://example.org')).toEqual({ filters: [], search: 'http://example.org' });
  expect(read('"kind:boot"')).toEqual({ filters: [], search: 'kind:boot' });
  expect(read('kind:')).toEqual({ filters: [], search: 'kind:' });
});

test('a filter is on or off', () => {
  expect(toggled(['a=1'], 'b=2')).toEqual(['a=1', 'b=2']);
  expect(toggled(['a=1', 'b=2'], 'a=1')).toEqual(['b=2']);
});

test('columns and values are offered', () => {
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
  expect(offers('free ki', COLUMNS, facets)).toEqual([{ text: 'kind:', note: 'text' }]);
  expect(offers('-kind:lo', COLUMNS, facets)).toEqual([{ text: '-kind:"log in"', note: '3' }]);
  expect(withOffer('free ki', { text: 'kind:', note: '' })).toBe('free kind:');
  expect(withOffer('free -kind:lo', { text: '-kind:"log in"', note: '' })).toBe('free -kind:"log in" ');
  expect(offers('', COLUMNS, facets)).toEqual([]);
});
