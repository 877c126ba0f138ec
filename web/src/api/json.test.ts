import { expect, test } from 'vitest';
import { parseJson, writeJson } from './json';

test('large numbers stay exact', () => {
  const text = '{"a":9223372036854775807,"b":-9223372036854775808,"c":1,"d":0.1,"e":1e400,"f":0.12345678901234567890}';
  expect(writeJson(parseJson(text), 0)).toBe(text);
});

test('a document round-trips', () => {
  const text = '{\n  "list": [\n    1,\n    "two",\n    null\n  ],\n  "none": {},\n  "nul": "a\\u0000b"\n}';
  expect(writeJson(parseJson(text))).toBe(text);
});
