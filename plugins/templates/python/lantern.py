"""The SDK for plugins in Python: declares tables and sources, checks each value against its column, and converts raised
exceptions into rejections that name the column. It implements the contract."""

import json as _json
import math
from dataclasses import dataclass, field
from datetime import datetime

import wit_world.exports as exports
from wit_world.exports import projector as wit


class Reject(Exception):
    """Rejects the message, which becomes a dead letter. The class is malformed, unsupported or invalid."""

    def __init__(self, reason_class, reason):
        super().__init__(reason)
        self.reason_class = wit.RejectionClass[reason_class.upper()]


@dataclass
class Column:
    """A column, created by `text()`, `timestamp()` and so on."""

    type: object
    expected: str
    convert: object
    nullable: bool = False
    role: str = "none"
    unit: str = ""
    doc: str = ""
    hints: dict = field(default_factory=dict)

    def value(self, name, given):
        if given is None:
            if self.nullable:
                return wit.Value_Null()
            raise Reject("malformed", f"{name}: missing; expected {self.expected}")
        converted = self.convert(given)
        if converted is None:
            raise Reject("malformed", f"{name}: expected {self.expected}, found {given!r}")
        return converted


def _column(type, expected, convert):
    return lambda **options: Column(type, expected, convert, **options)


def _plain(kind, make):
    return lambda given: make(given) if isinstance(given, kind) and not isinstance(given, bool) else None


def _integer(given):
    exact = isinstance(given, int) and not isinstance(given, bool) and -(2**63) <= given < 2**63
    return wit.Value_Integer(given) if exact else None


def _real(given):
    number = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
    return wit.Value_Real(float(given)) if number else None


def _timestamp(given):
    """RFC 3339 text, or microseconds since 1970 like `message.published`."""
    if isinstance(given, int) and not isinstance(given, bool):
        return wit.Value_Timestamp(given)
    if not isinstance(given, str):
        return None
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        return None
    if time.tzinfo is None:
        return None
    since = time - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return wit.Value_Timestamp((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


text = _column(wit.ColumnType.TEXT, "text", _plain(str, wit.Value_Text))
integer = _column(wit.ColumnType.INTEGER, "a 64-bit integer", _integer)
real = _column(wit.ColumnType.REAL, "a number", _real)
boolean = _column(
    wit.ColumnType.BOOLEAN, "true or false", lambda given: wit.Value_Boolean(given) if isinstance(given, bool) else None
)
blob = _column(wit.ColumnType.BLOB, "bytes", _plain(bytes, wit.Value_Blob))
json = _column(wit.ColumnType.JSON, "a value", lambda given: wit.Value_Json(_json.dumps(given, ensure_ascii=False, allow_nan=False)))
timestamp = _column(wit.ColumnType.TIMESTAMP, "a time such as 2026-05-28T10:41:00Z", _timestamp)

_ROLES = {"none": wit.Role_None_, "time": wit.Role_Time, "entity": wit.Role_Entity, "facet": wit.Role_Facet}


@dataclass(eq=False)
class Table:
    """A table with its columns by name. Indexes are pairs of columns and a uniqueness flag."""

    name: str
    columns: dict
    doc: str = ""
    primary_key: list = field(default_factory=list)
    indexes: list = field(default_factory=list)
    retention_days: int | None = None
    hints: dict = field(default_factory=dict)

    def manifest(self):
        columns = [
            wit.Column(
                name,
                column.type,
                column.nullable,
                wit.Role_Measure(column.unit) if column.role == "measure" else _ROLES[column.role](),
                column.doc,
                list(column.hints.items()),
            )
            for name, column in self.columns.items()
        ]
        indexes = [wit.Index(list(names), unique) for names, unique in self.indexes]
        return wit.Table(
            self.name, self.doc, columns, list(self.primary_key), indexes, self.retention_days, list(self.hints.items())
        )

    def write(self, on_conflict="fail", columns=None):
        """A write to the table; on_conflict is "fail", "ignore" or `update(…)`; `columns` are the columns of its rows."""
        return Write(self, on_conflict, list(columns or self.columns))


def update(key, while_null=None, newer=None, **merges):
    """How a row is merged into the stored one: replace=[…], keep, fill, add, min, max."""
    guard = wit.Guard_Always()
    if while_null:
        guard = wit.Guard_WhileNull(while_null)
    if newer:
        guard = wit.Guard_Newer(newer)
    rules = [wit.MergeRule(column, wit.Merge[merge.upper()]) for merge, columns in merges.items() for column in columns]
    return wit.OnConflict_Update(wit.UpdateRule(list(key), rules, guard))


_CONFLICTS = {"fail": wit.OnConflict_Fail, "ignore": wit.OnConflict_Ignore}


@dataclass(eq=False)
class Write:
    table: Table
    on_conflict: object
    columns: list

    def manifest(self):
        rule = _CONFLICTS[self.on_conflict]() if isinstance(self.on_conflict, str) else self.on_conflict
        return wit.Write(self.table.name, self.columns, rule)


@dataclass
class Source:
    handler: object
    manifest: object


def stream(name, stream_name, subjects, handler, headers=False):
    """Messages of a JetStream stream; `handler(message, rows)` is called for each."""
    return Source(handler, wit.Source(name, wit.Origin_Jetstream(wit.StreamSource(stream_name, list(subjects))), headers))


def core(name, subjects, handler, headers=False):
    """Messages of core NATS subjects, at most once."""
    return Source(handler, wit.Source(name, wit.Origin_Core(list(subjects)), headers))


class Message:
    """A message: `subject`, `sequence`, `published` (microseconds since 1970), `headers` and `payload` (bytes)."""

    def __init__(self, sent):
        self.subject, self.sequence, self.published = sent.subject, sent.sequence, sent.published
        self.headers, self.payload = sent.headers, sent.payload

    def text(self):
        return self.payload.decode("utf-8")

    def json(self):
        return _json.loads(self.payload)

    def header(self, name):
        """The first header with this name, ignoring case; None if there is none."""
        return next((value for candidate, value in self.headers if candidate.lower() == name.lower()), None)


class Rows:
    def __init__(self, writes):
        self._writes, self._rows = writes, []

    def put(self, write, values):
        columns = write.table.columns
        row = [columns[name].value(name, values.get(name)) for name in write.columns]
        self._rows.append(wit.Row(self._writes.index(write), row))


def _outcome(handler, writes, sent):
    rows = Rows(writes)
    try:
        handler(Message(sent), rows)
    except Reject as reject:
        return wit.Outcome_Reject(wit.Rejection(reject.reason_class, str(reject)))
    except KeyError as error:
        return wit.Outcome_Reject(wit.Rejection(wit.RejectionClass.MALFORMED, f"{error.args[0]}: missing"))
    except Exception as error:
        return wit.Outcome_Reject(wit.Rejection(wit.RejectionClass.MALFORMED, f"{type(error).__name__}: {error}"))
    return wit.Outcome_Rows(rows._rows) if rows._rows else wit.Outcome_Skip()


def projector(name, version, sources, writes, doc=""):
    """The plugin. Name it `Projector` in the module of the plugin."""
    tables = list(dict.fromkeys(write.table for write in writes))
    manifest = wit.Manifest(
        name,
        version,
        doc,
        [source.manifest for source in sources],
        [table.manifest() for table in tables],
        [write.manifest() for write in writes],
    )

    class Projector(exports.Projector):
        def describe(self):
            return manifest

        def project(self, source, messages):
            handler = sources[source].handler
            return [_outcome(handler, writes, sent) for sent in messages]

    return Projector
