import { expect, test } from 'vitest';
import type { Row } from '../api/types';
import { Tail } from './tail';

const row = (sequence: number, fields: Record<string, unknown> = {}): Row => ({
  ...fields,
  _id: `1:${sequence}:0`,
  _origin: '1',
  _sequence: String(sequence),
  _row: '0',
});
const rows = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => row(from + index));
const ids = (tail: Tail) => tail.rows.map((one) => Number(one._sequence));

test('the newest rows come first, without duplicates', () => {
  const tail = new Tail();
  tail.add(rows(4, 5));
  tail.addOlder([row(4), row(3), row(2)]);
  tail.add([row(6), row(4)]);
  expect(ids(tail)).toEqual([4, 6, 5, 3, 2]);
});

test('a row that a later message updates replaces its former state', () => {
  const tail = new Tail();
  tail.reset(['kind', 'day']);
  tail.add([row(1, { kind: 'a', day: '1' }), row(2, { kind: 'b', day: '1' })]);
  tail.addOlder([row(0, { kind: 'a', day: '1' })]);
  tail.add([row(3, { kind: 'a', day: '1' })]);
  expect(ids(tail)).toEqual([3, 2]);
});

test('rows received while paused are pending and counted', () => {
  const tail = new Tail();
  tail.add(rows(1, 2));
  tail.setPaused(true);
  tail.add(rows(3, 5));
  expect([ids(tail), tail.pending]).toEqual([[2, 1], 3]);
  tail.setPaused(false);
  expect([ids(tail), tail.pending]).toEqual([[5, 4, 3, 2, 1], 0]);
});

test('memory is bounded', () => {
  const tail = new Tail();
  tail.add(rows(1, 3_000));
  tail.setPaused(true);
  tail.add(rows(3_001, 9_000));
  tail.setPaused(false);
  expect(tail.rows.length).toBe(1_000);
  expect(ids(tail)[0]).toBe(9_000);
});
