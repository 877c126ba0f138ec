// Size limit of the first load: index.html and the files it references may have 120 KB as brotli. Files loaded later are
// only printed.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const LIMIT = 120_000;
const folder = new URL('../dist/page', import.meta.url).pathname;
const html = readFileSync(join(folder, 'index.html'), 'utf8');
const referenced = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map((match) => match[1]);
const size = (name) => statSync(join(folder, `${name}.br`)).size;
const first = ['index.html', ...new Set(referenced)];
const later = readdirSync(join(folder, 'assets'))
  .filter((name) => name.endsWith('.js') || name.endsWith('.css'))
  .map((name) => `assets/${name}`)
  .filter((name) => !first.includes(name));
const sum = (names) => names.reduce((total, name) => total + size(name), 0);
for (const name of first) console.log(`${String(size(name)).padStart(8)}  ${name}`);
for (const name of later) console.log(`${String(size(name)).padStart(8)}  ${name} (later)`);
console.log(`first load: ${sum(first)} bytes of ${LIMIT} as brotli; later: ${sum(later)}`);
if (sum(first) > LIMIT) {
  console.error('error: the first load exceeds the size limit');
  process.exit(1);
}
