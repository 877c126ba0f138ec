// Displays untrusted text safely: invisible characters are replaced by their names.

export interface Piece {
  text: string;
  /** Set if the text stands for an invisible character: its name. */
  name?: string;
}

// Written as escapes, because they are invisible: controls, direction marks, zero-width characters, line and paragraph
// separators, tags, and unpaired surrogates.
const INVISIBLE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the expression matches control characters
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e007f}]/gu;

const NAMES: Record<number, string> = {
  0: 'NUL',
  9: '⇥',
  10: '↵',
  13: '␍',
  27: 'ESC',
  127: 'DEL',
  173: 'SHY',
  8203: 'ZWSP',
  8204: 'ZWNJ',
  8205: 'ZWJ',
  8206: 'LRM',
  8207: 'RLM',
  1564: 'ALM',
  8234: 'LRE',
  8235: 'RLE',
  8236: 'PDF',
  8237: 'LRO',
  8238: 'RLO',
  8294: 'LRI',
  8295: 'RLI',
  8296: 'FSI',
  8297: 'PDI',
  65279: 'BOM',
};

/** Splits text at invisible characters. `lines` keeps line breaks and tabs unchanged. */
export function splitInvisible(text: string, lines = false): Piece[] {
  const found: Piece[] = [];
  let from = 0;
  for (const match of text.matchAll(INVISIBLE)) {
    const code = match[0].codePointAt(0) ?? 0;
    if (lines && (code === 0x0a || code === 0x09)) continue;
    // A ZWJ within an emoji sequence is harmless.
    if (code === 0x200d && /\p{Extended_Pictographic}/u.test(text.slice(match.index + 1, match.index + 3))) continue;
    if (match.index > from) found.push({ text: text.slice(from, match.index) });
    const hex = `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
    found.push({ text: NAMES[code] ?? hex, name: `${hex}${NAMES[code] ? ` ${NAMES[code]}` : ''}` });
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push({ text: text.slice(from) });
  return found;
}

/** The first `length` code units of text, without splitting a surrogate pair. */
export function clip(text: string, length: number): string {
  if (text.length <= length) return text;
  const last = text.charCodeAt(length - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? length - 1 : length);
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

/** Decodes bytes, or returns undefined if they are not UTF-8. */
export function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A hex dump, sixteen bytes per line: `00000000  7b 22 …  |{"…|`. */
export function hex(bytes: Uint8Array, most = 4096): string {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = [...bytes.subarray(at, Math.min(at + 16, most))];
    const digits = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const letters = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${at.toString(16).padStart(8, '0')}  ${digits.padEnd(47)}  |${letters}|`);
  }
  return lines.join('\n');
}
