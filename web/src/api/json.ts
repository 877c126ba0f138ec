// JSON without loss. A number that JavaScript would round becomes a bigint, or a `Literal` with its own digits.

/** A number that no JavaScript number can hold, as it was written. */
export class Literal {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

type Reviver = (key: string, value: unknown, context?: { source?: string }) => unknown;

const exact: Reviver = (_key, value, context) => {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  const source = context.source;
  if (Number.isSafeInteger(value)) return value;
  if (/^-?\d+$/.test(source)) return BigInt(source);
  if (Number.isFinite(value) && digits(source) <= 15) return value;
  return String(value) === source ? value : new Literal(source);
};

function digits(source: string): number {
  return source
    .replace(/e.*$/i, '')
    .replace(/[-.]/g, '')
    .replace(/^0+/, '').length;
}

/** Parses JSON text and keeps every number exact. */
export function parseJson(text: string): unknown {
  return JSON.parse(text, exact as (this: unknown, key: string, value: unknown) => unknown);
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
  const parts = Array.isArray(value)
    ? value.map((one) => write(one, indent, inner))
    : Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}:${indent ? ' ' : ''}${write(one, indent, inner)}`);
  if (parts.length === 0) return open + close;
  if (indent === 0) return open + parts.join(',') + close;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${before}${close}`;
}
