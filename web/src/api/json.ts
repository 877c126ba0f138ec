// Lossless JSON. A number that JavaScript would round becomes a bigint, or a `Literal` with its original digits.

/** A number that a JavaScript number cannot represent, as it was written. */
export class Literal {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

/** A string, which is skipped, or a number. */
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Parses JSON text and keeps every number exact. */
export function parseJson(text: string): unknown {
  // A random prefix that occurs in no string of the document, so that no string is taken for a number. Not all browsers
  // pass the source digits to a reviver yet, and `randomUUID` requires TLS on another machine.
  const mark = `\u0000${crypto.getRandomValues(new Uint32Array(4)).join('-')}:`;
  let found = false;
  const marked = text.replace(TOKEN, (token) => {
    if (token.startsWith('"') || isExact(token)) return token;
    found = true;
    return JSON.stringify(mark + token);
  });
  if (!found) return JSON.parse(text);
  return JSON.parse(marked, (_key, value) => {
    if (typeof value !== 'string' || !value.startsWith(mark)) return value;
    const digits = value.slice(mark.length);
    return /^-?\d+$/.test(digits) ? BigInt(digits) : new Literal(digits);
  });
}

/** Whether a JavaScript number represents the token exactly, apart from notation (1.50). */
function isExact(token: string): boolean {
  if (token.length <= 15) return !/[eE]/.test(token) || Number.isFinite(Number(token));
  const value = Number(token);
  if (Number.isSafeInteger(value)) return true;
  return Number.isFinite(value) && String(value) === token;
}

/** The inverse of `parseJson`. */
export function writeJson(value: unknown, indent = 2): string {
  return write(value, indent, '');
}

function write(value: unknown, indent: number, before: string): string {
  if (typeof value === 'bigint' || value instanceof Literal) return value.toString();
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const inner = before + ' '.repeat(indent);
  const [open, close] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  const space = indent ? ' ' : '';
  const parts = Array.isArray(value)
    ? value.map((one) => write(one, indent, inner))
    : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}:${space}${write(one, indent, inner)}`);
  if (parts.length === 0) return open + close;
  if (indent === 0) return open + parts.join(',') + close;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${before}${close}`;
}
