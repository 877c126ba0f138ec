import { expect, test } from 'vitest';
import { EventParser } from './events';

test('events are parsed independent of chunk boundaries', () => {
  const text =
    'event: rows\r\nid: 7\r\ndata: {"items":\r\ndata: []}\r\n\r\n: keep-alive\n\nevent: omitted\ndata: {"rows_omitted":3}\n\n';
  for (const size of [1, 3, 7, 1000]) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
    expect(events).toEqual([
      { name: 'rows', id: '7', data: '{"items":\n[]}' },
      { name: 'omitted', id: '7', data: '{"rows_omitted":3}' },
    ]);
  }
});
