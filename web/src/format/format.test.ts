import { expect, test } from 'vitest';
import { readMetrics } from './metrics';
import { bytes, compact, measured, plural, some, unitName, whole } from './numbers';
import { clip, fromBase64, hex, splitInvisible, utf8 } from './text';
import { axisTime, duration, exactTime, formatRange, parseTime, relativeTime, toRfc3339 } from './time';

const NOW = Date.parse('2026-11-21T12:00:00Z');

test('relative and absolute times are parsed', () => {
  expect(parseTime('now', NOW)).toBe(NOW);
  expect(parseTime('now-15m', NOW)).toBe(NOW - 900_000);
  expect(parseTime('now-2w', NOW)).toBe(NOW - 14 * 86_400_000);
  expect(parseTime('2026-11-21T11:59:59.5Z', NOW)).toBe(NOW - 500);
  expect(parseTime('yesterday', NOW)).toBeUndefined();
});

test('exact times keep the fractional digits', () => {
  expect(exactTime('2026-11-21T10:00:00.123456Z', 'utc')).toBe('2026-11-21 10:00:00.123456');
  expect(exactTime('2026-11-21T10:00:00.123456Z', 'utc', 3)).toBe('2026-11-21 10:00:00.123');
  expect(exactTime('2026-11-21T10:00:00Z', 'utc')).toBe('2026-11-21 10:00:00');
  expect(exactTime('no time', 'utc')).toBe('no time');
});

test('RFC 3339 times are clamped to the years 0000 to 9999', () => {
  expect(toRfc3339(NOW)).toBe('2026-11-21T12:00:00Z');
  expect(toRfc3339(Date.parse('0001-01-01T00:00:00.5Z'))).toBe('0001-01-01T00:00:00.500Z');
  expect(toRfc3339(-1e15)).toBe('0000-01-01T00:00:00Z');
  expect(toRfc3339(1e300)).toBe('9999-12-31T23:59:59.999Z');
  expect(toRfc3339(Number.NaN)).toBe('0000-01-01T00:00:00Z');
  expect(exactTime('0001-01-01T00:00:00Z', 'utc')).toBe('0001-01-01 00:00:00');
});

test('durations have one unit', () => {
  expect(relativeTime(NOW, NOW)).toBe('just now');
  expect(relativeTime(NOW - 45_000, NOW)).toBe('45 s ago');
  expect(relativeTime(NOW + 180_000, NOW)).toBe('in 3 min');
  expect(duration(250)).toBe('250 ms');
  expect(duration(5 * 86_400_000)).toBe('5 d');
});

test('ranges have names', () => {
  expect(formatRange('now-15m', undefined, 'utc')).toBe('Last 15 minutes');
  expect(formatRange('now-1h', 'now', 'utc')).toBe('Last hour');
  expect(formatRange(undefined, undefined, 'utc')).toBe('All time');
  expect(formatRange('2026-11-21T10:00:00Z', '2026-11-21T11:30:00Z', 'utc')).toBe(
    '2026-11-21 10:00 – 2026-11-21 11:30',
  );
  expect(axisTime(NOW, 60_000, 'utc')).toBe('12:00:00');
});

test('integers keep every digit', () => {
  expect(whole('9223372036854775807').replace(/\u202f/g, ' ')).toBe('9 223 372 036 854 775 807');
  expect(whole(-1234).replace(/\u202f/g, ' ')).toBe('-1 234');
  expect(compact(999)).toBe('999');
  expect(compact(20_500).replace(/\u202f/g, ' ')).toBe('20.5 k');
  expect(plural(1, 'row')).toBe('1 row');
  expect(plural(0, 'row')).toBe('0 rows');
});

test('units have display names', () => {
  expect(unitName('Cel')).toBe('°C');
  expect(unitName('{requests}')).toBe('requests');
  expect(unitName(null)).toBe('');
  expect(bytes(1536)).toBe('1.5 KiB');
  expect(measured(2 ** 34, 'By')).toBe('16.0 GiB');
  expect(measured(42.5, '%')).toBe('42.5%');
  expect(measured(Number.NaN, '%')).toBe('–');
});

test('invisible characters are shown by name', () => {
  expect(splitInvisible('plain <b>text</b>')).toEqual([{ text: 'plain <b>text</b>' }]);
  expect(splitInvisible('a\u0000b')).toEqual([{ text: 'a' }, { text: 'NUL', name: 'U+0000 NUL' }, { text: 'b' }]);
  expect(splitInvisible('\u202egnp.exe')[0]).toEqual({ text: 'RLO', name: 'U+202E RLO' });
  expect(splitInvisible('\ud800')[0]?.name).toBe('U+D800');
  expect(splitInvisible('a\nb', true)).toEqual([{ text: 'a\nb' }]);
  expect(splitInvisible('👩‍💻')).toEqual([{ text: '👩‍💻' }]);
  expect(splitInvisible('שלום')).toEqual([{ text: 'שלום' }]);
});

test('clipping never splits a surrogate pair', () => {
  expect(clip('ab😀', 3)).toBe('ab');
  expect(clip('abc', 3)).toBe('abc');
});

test('bytes are decoded only if they are UTF-8', () => {
  const bytes = fromBase64('AP9hYg==');
  expect(utf8(bytes)).toBeUndefined();
  expect(hex(bytes)).toBe('00000000  00 ff 61 62                                      |..ab|');
  expect(utf8(fromBase64('w6Q='))).toBe('ä');
});

test('metrics are parsed with their labels', () => {
  const text = '# TYPE a counter\na_total{plugin="x",kind="a\\"b"} 4\nb 1.5\n# EOF\n';
  expect(readMetrics(text)).toEqual([
    { name: 'a_total', labels: { plugin: 'x', kind: 'a\\"b' }, value: 4 },
    { name: 'b', labels: {}, value: 1.5 },
  ]);
});

test('counts use the singular and the plural', () => {
  expect([0, 1, 2, 12_345].map((count) => some(count, 'row'))).toEqual([
    '0 rows',
    '1 row',
    '2 rows',
    '12.3\u202fk rows',
  ]);
  expect(some(1, 'older row has', 'older rows have')).toBe('1 older row has');
});
