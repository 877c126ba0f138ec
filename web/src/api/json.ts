// JSON without loss. A number that JavaScript would round becomes a bigint, or a `Literal` with its own digits.

/** A number that no JavaScript number can hold, as it was written. */
export class Literal {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

/** Text, which is passed over, or a number. */
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Parses JSON text and keeps every number exact. */
export function parseJson(text: string): unknown {
  // A mark that is in no text of the document, so that no text is taken for a number. Browsers that hand the digits to
  // a reviver would do without; not all do yet. Nor do all know `randomUUID`: none does without TLS, off this machine.
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

/** Whether a JavaScript number says the same; what differs in writing alone (1.50) does. */
function isExact(token: string): boolean {
  if (token.length <= 15) return !/[eE]/.test(token) || Number.isFinite(Number(token));
  const value = Number(token);
  if (Number.isSafeInteger(value)) return true;
  return Number.isFinite(value) && String(value) === token;
}

/** The inverse of `parseJson`, with two spaces of indentation unless said otherwise. */
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
