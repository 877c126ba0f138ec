// Formats numbers and units (UCUM). Large integers are text or bigint and stay exact.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { maximumSignificantDigits: 4 });

/** An integer of any length with grouped digits. */
export function whole(value: number | bigint | string): string {
  const text = String(value);
  return /^-?\d+$/.test(text) ? text.replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f') : text;
}

/** A short count: `950`, `12.3 k`, `4.5 M`. */
export function compact(value: number): string {
  for (const [size, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e4, 'k'],
  ] as const) {
    if (Math.abs(value) >= size) {
      const scaled = value / (letter === 'k' ? 1e3 : size);
      return `${scaled.toLocaleString('en', { maximumFractionDigits: scaled < 100 ? 1 : 0 })}\u202f${letter}`;
    }
  }
  return whole(Math.round(value));
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

/** A short count with a noun: `1 row`, `12.3 k rows`. */
export function some(count: number, one: string, many = `${one}s`): string {
  return `${compact(count)} ${count === 1 ? one : many}`;
}

const NAMES: Record<string, string> = {
  '%': '%',
  By: 'B',
  'By/s': 'B/s',
  kBy: 'kB',
  MBy: 'MB',
  GBy: 'GB',
  KiBy: 'KiB',
  MiBy: 'MiB',
  GiBy: 'GiB',
  bit: 'bit',
  'bit/s': 'bit/s',
  s: 's',
  ms: 'ms',
  us: 'µs',
  ns: 'ns',
  min: 'min',
  h: 'h',
  d: 'd',
  Cel: '°C',
  '[degF]': '°F',
  K: 'K',
  Hz: 'Hz',
  V: 'V',
  A: 'A',
  W: 'W',
  J: 'J',
  Pa: 'Pa',
  m: 'm',
  g: 'g',
  kg: 'kg',
  '/s': 'per s',
  '/min': 'per min',
  '1': '',
};

/** The display name of a UCUM unit. Annotations (`{requests}`) are unchanged. */
export function unitName(unit: string | null | undefined): string {
  if (!unit) return '';
  return NAMES[unit] ?? unit.replace(/[{}]/g, '');
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

export function bytes(value: number): string {
  let size = Math.abs(value);
  let step = 0;
  while (size >= 1024 && step < BINARY.length - 1) {
    size /= 1024;
    step += 1;
  }
  const digits = step === 0 || size >= 100 ? 0 : 1;
  return `${value < 0 ? '−' : ''}${size.toFixed(digits)} ${BINARY[step]}`;
}

/** A rounded value with its unit. */
export function measured(value: number, unit: string | null | undefined): string {
  if (!Number.isFinite(value)) return '–';
  if (unit === 'By') return bytes(value);
  if (unit === 'By/s') return `${bytes(value)}/s`;
  const name = unitName(unit);
  const number = Math.abs(value) >= 10_000 ? grouped.format(value) : short.format(value);
  return name ? `${number}${name === '%' ? '' : ' '}${name}` : number;
}
