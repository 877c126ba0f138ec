// The SDK for plugins in JavaScript: declares tables and sources as plain objects, checks each value against its column, and
// converts thrown errors into rejections that name the column. It implements the contract.

/** A rejection of a message, thrown by `reject` and by the checks of this module. */
class Rejection extends Error {
  constructor(reasonClass, reason) {
    super(reason);
    this.reasonClass = reasonClass;
  }
}

/** Rejects the message, which becomes a dead letter. `reasonClass` is "malformed", "unsupported" or "invalid". */
export function reject(reasonClass, reason) {
  throw new Rejection(reasonClass, reason);
}

/** Whether the toolchain represents 64-bit integers as BigInt; detected with each message. */
let usesBigInt = false;
const whole = (number) => (usesBigInt ? BigInt(number) : Number(number));

const describeMismatch = (value, expected) =>
  value === undefined ? `missing; expected ${expected}` : `expected ${expected}, found ${JSON.stringify(value)}`;

const columnType = (name, expected, convert) => (options = {}) => ({ name, expected, convert, ...options });

/** Text without NUL characters. */
export const text = columnType("text", "text", (value) => (typeof value === "string" ? value : undefined));
/** An integer of up to 64 bits; without BigInt, values beyond 2^53 are rejected. */
export const integer = columnType("integer", "an integer", (value) =>
  Number.isSafeInteger(value) || typeof value === "bigint" ? whole(value) : undefined,
);
/** A number. */
export const real = columnType("real", "a number", (value) => (Number.isFinite(value) ? value : undefined));
/** true or false. */
export const boolean = columnType("boolean", "true or false", (value) => (typeof value === "boolean" ? value : undefined));
/** Bytes: a Uint8Array. */
export const blob = columnType("blob", "bytes", (value) => (value instanceof Uint8Array ? value : undefined));
/** Any JSON value. */
export const json = columnType("json", "a value", (value) => JSON.stringify(value));
/** RFC 3339 text, or microseconds since 1970 like `message.published`. */
export const timestamp = columnType("timestamp", "a time such as 2026-05-28T10:41:00Z", (value) => {
  if (typeof value === "bigint" || Number.isSafeInteger(value)) return whole(value);
  const parts = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)$/.exec(value);
  if (typeof value !== "string" || !parts) return undefined;
  const [, date, time, fraction = "", offset] = parts;
  const millis = Date.parse(`${date}T${time}${offset.toUpperCase()}`);
  if (Number.isNaN(millis)) return undefined;
  return whole(millis * 1000 + Number(fraction.slice(0, 6).padEnd(6, "0")));
});

/**
 * A table with its columns by name, each created by `text()`, `timestamp()` and so on with
 * `{ nullable, role: "time" | "entity" | "facet" | "measure", unit, doc, hints }`.
 * Settings are `doc`, `primaryKey`, `indexes` (`{ columns, unique }`), `retentionDays` and `hints`.
 */
export function table(name, columns, settings = {}) {
  const { doc = "", primaryKey = [], indexes = [], retentionDays = null, hints = {} } = settings;
  const declared = Object.entries(columns).map(([column, type]) => ({
    name: column,
    columnType: type.name,
    nullable: type.nullable ?? false,
    role: type.role === "measure" ? { tag: "measure", val: type.unit ?? "" } : { tag: type.role ?? "none" },
    doc: type.doc ?? "",
    hints: Object.entries(type.hints ?? {}),
  }));
  const declaredIndexes = indexes.map((index) => ({ columns: index.columns, unique: index.unique ?? false }));
  const manifest = { name, doc, columns: declared, primaryKey, indexes: declaredIndexes, retentionDays, hints: Object.entries(hints) };
  return { name, columns, manifest };
}

/**
 * A write to a table. `onConflict` is "fail" (the default), "ignore", or an update:
 * `{ key: [...], replace: [...], keep, fill, add, min, max, whileNull: column, newer: column }`.
 * `columns` are the columns of the rows, by default all columns of the table.
 */
export function write(into, { onConflict = "fail", columns = Object.keys(into.columns) } = {}) {
  return { into, columns, manifest: { table: into.name, columns, onConflict: conflict(onConflict) } };
}

function conflict(rule) {
  if (typeof rule === "string") return { tag: rule };
  const { key, whileNull, newer, ...merges } = rule;
  const guard = newer ? { tag: "newer", val: newer } : whileNull ? { tag: "while-null", val: whileNull } : { tag: "always" };
  const rules = Object.entries(merges).flatMap(([merge, columns]) => columns.map((column) => ({ column, merge })));
  return { tag: "update", val: { key, merges: rules, guard } };
}

/** Messages of a JetStream stream; `handler(message, rows)` is called for each. `{ headers: true }` includes headers. */
export const stream = (name, streamName, subjects, handler, { headers = false } = {}) => ({
  handler,
  manifest: { name, origin: { tag: "jetstream", val: { streamName, subjects } }, wantsHeaders: headers },
});

/** Messages of core NATS subjects, at most once. */
export const core = (name, subjects, handler, { headers = false } = {}) => ({
  handler,
  manifest: { name, origin: { tag: "core", val: subjects }, wantsHeaders: headers },
});

/** The plugin. Export it as `projector`. */
export function plugin({ name, version, doc = "", sources, writes }) {
  const tables = [...new Set(writes.map((one) => one.into))].map((one) => one.manifest);
  const manifest = {
    name, version, doc, tables,
    sources: sources.map((source) => source.manifest),
    writes: writes.map((one) => one.manifest),
  };
  return {
    describe: () => manifest,
    project: (source, messages) => messages.map((sent) => outcome(sources[source].handler, writes, sent)),
  };
}

function outcome(handler, writes, sent) {
  usesBigInt = typeof sent.sequence === "bigint";
  const rows = [];
  const put = (write, values) => rows.push({ write: writes.indexOf(write), values: row(write, values) });
  try {
    handler(new Message(sent), { put });
  } catch (error) {
    const reasonClass = error instanceof Rejection ? error.reasonClass : "malformed";
    const reason = error instanceof Rejection ? error.message : String(error);
    return { tag: "reject", val: { class: reasonClass, reason } };
  }
  return rows.length > 0 ? { tag: "rows", val: rows } : { tag: "skip" };
}

function row(write, values) {
  return write.columns.map((name) => {
    const column = write.into.columns[name];
    const value = values[name];
    if (column.nullable && (value === null || value === undefined)) return { tag: "null" };
    const converted = value === null ? undefined : column.convert(value);
    if (converted === undefined) {
      throw new Rejection("malformed", `${name}: ${describeMismatch(value, column.expected)}`);
    }
    return { tag: column.name, val: converted };
  });
}

/** A message: `subject`, `sequence`, `published` (microseconds since 1970), `headers` and `payload` (bytes). */
class Message {
  constructor(sent) {
    Object.assign(this, sent);
  }

  /** The payload as text; rejects a payload that is not UTF-8. */
  text() {
    try {
      return decode(this.payload);
    } catch {
      return reject("malformed", "the payload is not UTF-8");
    }
  }

  /** The payload as a JSON value. */
  json() {
    return JSON.parse(this.text());
  }

  /** The first header with this name, ignoring case; undefined if there is none. */
  header(name) {
    return this.headers.find(([candidate]) => candidate.toLowerCase() === name.toLowerCase())?.[1];
  }
}

/** Decodes UTF-8, because QuickJS has no TextDecoder. */
function decode(bytes) {
  let escaped = "";
  let plain = true;
  for (let at = 0; at < bytes.length; at += 4096) {
    const part = bytes.subarray(at, at + 4096);
    plain &&= part.every((byte) => byte < 0x80);
    escaped += String.fromCharCode.apply(null, part);
  }
  if (plain) return escaped;
  const percent = (c) => (c < "\x80" ? encodeURIComponent(c) : `%${c.charCodeAt(0).toString(16)}`);
  return decodeURIComponent(Array.from(escaped, percent).join(""));
}
