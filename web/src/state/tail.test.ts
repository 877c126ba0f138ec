import { expect, test } from 'vitest';
import type { Row } from '../api/types';
import { Tail } from './tail';

const row = (id: number): Row => ({ _row: String(id), _origin: { source: null, epoch: null, sequence: id } });
const rows = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => row(from + index));
const ids = (tail: Tail) => tail.shown.map((one) => Number(one._row));

test('the newest come first, and what is known is not doubled', () => {
  const tail = new Tail();
  tail.add(rows(4, 5));
  tail.before([row(4), row(3), row(2)]);
  tail.add([row(6), row(4)]);
  expect(ids(tail)).toEqual([4, 6, 5, 3, 2]);
});

test('what comes while it is held waits, and is counted', () => {
  const tail = new Tail();
  tail.add(rows(1, 2));
  tail.hold(true);
  tail.add(rows(3, 5));
  expect([ids(tail), tail.waiting]).toEqual([[2, 1], 3]);
  tail.hold(false);
  expect([ids(tail), tail.waiting]).toEqual([[5, 4, 3, 2, 1], 0]);
});

test('memory is bounded', () => {
  const tail = new Tail();
  tail.add(rows(1, 3_000));
  tail.hold(true);
  tail.add(rows(3_001, 9_000));
  tail.hold(false);
  expect(tail.shown.length).toBe(1_000);
  expect(ids(tail)[0]).toBe(9_000);
});
