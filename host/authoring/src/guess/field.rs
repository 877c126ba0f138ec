//! Statistics of one field of the sample messages, and the column that they suggest.

use std::collections::HashSet;

use serde_json::Value as Tree;
use serde_json::value::RawValue;

use super::{Column, Content, DISTINCT_MAX, append_reason, column_name, parse_time, unused};
use lantern_model::schema::{ColumnType, DeclaredRole};

/// Most values of a facet, so that the dashboard can list them.
const FACET_VALUES_MAX: usize = 12;
/// Fewest messages from which a facet is derived.
const FACET_MESSAGES_MIN: usize = 8;

/// Field names of the entity that an event is about.
const ENTITY_NAMES: [&str; 20] = [
    "pc_id",
    "host",
    "hostname",
    "host_name",
    "machine",
    "device",
    "device_id",
    "node",
    "server",
    "sensor",
    "sensor_id",
    "user",
    "user_id",
    "username",
    "customer",
    "customer_id",
    "account",
    "account_id",
    "service",
    "tenant",
];
/// Field names that usually have few distinct values.
const FACET_NAMES: [&str; 16] = [
    "kind",
    "type",
    "event",
    "event_type",
    "action",
    "status",
    "state",
    "level",
    "severity",
    "source",
    "category",
    "method",
    "country",
    "region",
    "currency",
    "result",
];
/// Suffixes of field names with their units in UCUM.
const UNIT_SUFFIXES: [(&str, &str); 17] = [
    ("_ms", "ms"),
    ("_millis", "ms"),
    ("_us", "us"),
    ("_ns", "ns"),
    ("_seconds", "s"),
    ("_secs", "s"),
    ("_sec", "s"),
    ("_minutes", "min"),
    ("_bytes", "By"),
    ("_kb", "kBy"),
    ("_mb", "MBy"),
    ("_gb", "GBy"),
    ("_percent", "%"),
    ("_pct", "%"),
    ("_celsius", "Cel"),
    ("_meters", "m"),
    ("_watts", "W"),
];
/// Names, or last words of names, of quantities without a known unit.
const QUANTITY_NAMES: [&str; 12] = [
    "count", "total", "amount", "size", "length", "duration", "value", "price", "quantity", "bytes", "cents",
    "score",
];

/// Statistics of one field.
#[derive(Default)]
pub(super) struct FieldStats {
    pub(super) name: String,
    values: usize,
    nulls: usize,
    booleans: usize,
    integers: usize,
    pub(super) too_large: usize,
    reals: usize,
    texts: usize,
    times: usize,
    nested: usize,
    /// Values that are JSON, but that no other type stores: `1e400`, a lone surrogate, a NUL character, or very deep nesting.
    unreadable: usize,
    longest: usize,
    pub(super) distinct: HashSet<String>,
}

impl FieldStats {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, value: &RawValue) {
        self.values += 1;
        let Ok(tree) = serde_json::from_str::<Tree>(value.get()) else {
            self.unreadable += 1;
            return;
        };
        let distinct = match &tree {
            Tree::Null => {
                self.nulls += 1;
                return;
            }
            Tree::Bool(_) => {
                self.booleans += 1;
                tree.to_string()
            }
            Tree::Number(number) => {
                match number {
                    _ if number.is_i64() => self.integers += 1,
                    _ if number.is_u64() => self.too_large += 1,
                    _ => self.reals += 1,
                }
                tree.to_string()
            }
            Tree::String(text) if text.contains('\0') => {
                self.unreadable += 1;
                return;
            }
            Tree::String(text) => {
                self.texts += 1;
                self.times += usize::from(parse_time(text).is_some());
                self.longest = self.longest.max(text.chars().count());
                text.clone()
            }
            Tree::Array(_) | Tree::Object(_) => {
                self.nested += 1;
                return;
            }
        };
        if self.distinct.len() < DISTINCT_MAX {
            self.distinct.insert(distinct);
        }
    }

    pub(super) fn column(&self, messages: usize, others: &[Column]) -> Column {
        let present = self.values - self.nulls;
        let (column_type, mut reason) = if present == 0 {
            (ColumnType::Json, "always null".to_owned())
        } else if self.booleans == present {
            (ColumnType::Boolean, String::new())
        } else if self.integers == present {
            (ColumnType::Integer, String::new())
        } else if self.integers + self.reals == present {
            (ColumnType::Real, String::new())
        } else if self.times == present {
            (ColumnType::Timestamp, "all values are RFC 3339 times".to_owned())
        } else if self.texts == present {
            (ColumnType::Text, String::new())
        } else if self.nested == present {
            (ColumnType::Json, "nested: stored as JSON".to_owned())
        } else if self.unreadable > 0 {
            (
                ColumnType::Json,
                "values without an exact representation: stored as JSON".to_owned(),
            )
        } else if self.too_large > 0 {
            (
                ColumnType::Json,
                "numbers that do not fit a signed 64-bit integer".to_owned(),
            )
        } else {
            (ColumnType::Json, "values of several types".to_owned())
        };
        let nullable = present < messages;
        if nullable {
            let absent = messages - self.values;
            let missing = match (absent, self.nulls) {
                (0, nulls) => format!("null in {nulls} of {messages}"),
                (absent, 0) => format!("missing in {absent} of {messages}"),
                (absent, nulls) => format!("missing in {absent} and null in {nulls} of {messages}"),
            };
            append_reason(&mut reason, &missing);
        }
        Column {
            name: unused(&column_name(&self.name), others),
            content: Content::Field(self.name.clone()),
            column_type,
            nullable,
            role: DeclaredRole::None,
            reason,
        }
    }

    pub(super) fn assign_role(&self, column: &mut Column, messages: usize) {
        let name = column.name.as_str();
        let has_few_values = self.distinct.len() <= FACET_VALUES_MAX
            && messages >= FACET_MESSAGES_MIN
            && self.distinct.len() * 2 <= messages
            && self.longest <= 40;
        let has_facet_name = FACET_NAMES.contains(&name)
            || FACET_NAMES
                .iter()
                .any(|facet| name.ends_with(&format!("_{facet}")));
        match column.column_type {
            ColumnType::Text if ENTITY_NAMES.contains(&name) => {
                column.role = DeclaredRole::Entity;
                append_reason(&mut column.reason, "name of an entity");
            }
            ColumnType::Text if has_facet_name && self.longest <= 60 => {
                column.role = DeclaredRole::Facet;
                append_reason(&mut column.reason, "name of a facet");
            }
            ColumnType::Text | ColumnType::Boolean if has_few_values && !name.ends_with("_id") => {
                column.role = DeclaredRole::Facet;
                let values = self.distinct.len();
                append_reason(
                    &mut column.reason,
                    &format!("{values} distinct values in {messages}"),
                );
            }
            ColumnType::Integer | ColumnType::Real => {
                if let Some((suffix, unit)) = UNIT_SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix))
                {
                    column.role = DeclaredRole::Measure((*unit).to_owned());
                    append_reason(&mut column.reason, &format!("unit from the suffix {suffix}"));
                } else if column.column_type == ColumnType::Real
                    || QUANTITY_NAMES
                        .iter()
                        .any(|word| name == *word || name.ends_with(&format!("_{word}")))
                {
                    column.role = DeclaredRole::Measure(String::new());
                    append_reason(&mut column.reason, "quantity of unknown unit");
                }
            }
            _ => {}
        }
    }
}
