// Formats times (exact, short and relative), and parses the times of an address.

export type Zone = 'local' | 'utc';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const UNITS: Record<string, number> = { s: SECOND, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY };

/** Converts RFC 3339 text, `now`, `now-15m` or `now-7d` to milliseconds since 1970. */
export function parseTime(text: string, now: number): number | undefined {
  const relative = /^now(?:-(\d+)([smhdw]))?$/.exec(text);
  if (relative) {
    const unit = UNITS[relative[2] ?? 's'] ?? 0;
    return now - Number(relative[1] ?? 0) * unit;
  }
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : at;
}

export function isRelative(text: string): boolean {
  return text.startsWith('now');
}

const two = (value: number) => String(value).padStart(2, '0');
const four = (value: number) => String(value).padStart(4, '0');

function fields(date: Date, zone: Zone): [number, number, number, number, number, number] {
  return zone === 'utc'
    ? [
        date.getUTCFullYear(),
        date.getUTCMonth() + 1,
        date.getUTCDate(),
        date.getUTCHours(),
        date.getUTCMinutes(),
        date.getUTCSeconds(),
      ]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

/** `2026-11-21 15:04:05.123`, with the fractional digits of `text`, up to `digits`. */
export function exactTime(text: string, zone: Zone, digits = 6): string {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  const [year, month, day, hour, minute, second] = fields(date, zone);
  const fraction = /\.(\d+)/.exec(text)?.[1]?.slice(0, digits) ?? '';
  const clock = `${two(hour)}:${two(minute)}:${two(second)}${fraction ? `.${fraction}` : ''}`;
  return `${four(year)}-${two(month)}-${two(day)} ${clock}`;
}

/** The exact time with its zone, for a tooltip. */
export function fullTime(text: string, zone: Zone): string {
  return `${exactTime(text, zone)} ${zone === 'utc' ? 'UTC' : localOffset(new Date(text))}`;
}

function localOffset(date: Date): string {
  const minutes = -date.getTimezoneOffset();
  if (Number.isNaN(minutes)) return '';
  const size = Math.abs(minutes);
  return `UTC${minutes < 0 ? '−' : '+'}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** `3 s ago`, `in 2 min`. */
export function relativeTime(at: number, now: number): string {
  const distance = now - at;
  const size = Math.abs(distance);
  if (size < 1_500) return 'just now';
  const distanceText = duration(size);
  return distance > 0 ? `${distanceText} ago` : `in ${distanceText}`;
}

/** A duration in one unit: `45 s`, `12 min`, `3 h`, `5 d`. */
export function duration(milliseconds: number): string {
  if (milliseconds < SECOND) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 90 * SECOND) return `${Math.round(milliseconds / SECOND)} s`;
  if (milliseconds < 90 * MINUTE) return `${Math.round(milliseconds / MINUTE)} min`;
  if (milliseconds < 36 * HOUR) return `${Math.round(milliseconds / HOUR)} h`;
  return `${Math.round(milliseconds / DAY)} d`;
}

/** An axis label, with the precision that a range of this length needs. */
export function axisTime(at: number, range: number, zone: Zone): string {
  const [year, month, day, hour, minute, second] = fields(new Date(at), zone);
  const clock = `${two(hour)}:${two(minute)}`;
  if (range <= 5 * MINUTE) return `${clock}:${two(second)}`;
  if (range <= DAY) return clock;
  if (range <= 7 * DAY) return `${two(month)}-${two(day)} ${clock}`;
  return `${four(year)}-${two(month)}-${two(day)}`;
}

/** The name of a range, such as `Last 15 minutes`. */
export function formatRange(from: string | undefined, to: string | undefined, zone: Zone): string {
  if (!from && !to) return 'All time';
  const relative = /^now-(\d+)([smhdw])$/.exec(from ?? '');
  if (relative && (!to || to === 'now')) {
    const names: Record<string, string> = { s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week' };
    const count = Number(relative[1]);
    const name = names[relative[2] ?? ''] ?? '';
    return count === 1 ? `Last ${name}` : `Last ${count} ${name}s`;
  }
  const one = (text: string) => (isRelative(text) ? text : exactTime(text, zone, 0).replace(/:00$/, ''));
  if (!to) return `Since ${one(from ?? '')}`;
  if (!from) return `Until ${one(to)}`;
  return `${one(from)} – ${one(to)}`;
}

/** The first and the last millisecond in RFC 3339, which are also the host's limits. */
const FIRST = Date.parse('0000-01-01T00:00:00Z');
const LAST = Date.parse('9999-12-31T23:59:59.999Z');

/** RFC 3339 text without a zero fraction. Times outside the years 0000 to 9999 are clamped, because the host rejects
    them; NaN becomes the first time. */
export function toRfc3339(at: number): string {
  const inside = Number.isNaN(at) ? FIRST : Math.min(Math.max(at, FIRST), LAST);
  return new Date(inside).toISOString().replace('.000Z', 'Z');
}
