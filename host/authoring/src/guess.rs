//! A guess at a table from messages: columns with their types, what they mean to people, and a key. It is a proposal to
//! be corrected, so each part of it says why.

use std::collections::HashSet;
use std::fmt;

use chrono::{DateTime, FixedOffset};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Tree;
use serde_json::value::RawValue;

use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::schema::{ColumnType, Role};

/// Values of one field that are told apart.
const DISTINCT_MAX: usize = 1_000;
/// Most values of a facet: what still fits beside a table as a list.
const FACET_VALUES_MAX: usize = 12;
/// Fewest values from which it can be seen that there are few distinct ones.
const FACET_SEEN_MIN: usize = 8;

/// Names of fields that say when something happened, the most telling first.
const TIMES: [&str; 12] = [
    "at",
    "time",
    "timestamp",
    "ts",
    "occurred_at",
    "happened_at",
    "event_time",
    "created_at",
    "created",
    "date",
    "datetime",
    "started_at",
];
/// Names that say whom or what it happened to.
const ENTITIES: [&str; 20] = [
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
/// Names with few distinct values.
const FACETS: [&str; 16] = [
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
/// Names of a message's own identity.
const KEYS: [&str; 5] = ["id", "uuid", "guid", "event_id", "message_id"];
/// Ends of names, and the unit that they tell, in UCUM.
const UNITS: [(&str, &str); 17] = [
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
/// Names, or ends of names, of quantities without a unit.
const QUANTITIES: [&str; 12] = [
    "count", "total", "amount", "size", "length", "duration", "value", "price", "quantity", "bytes", "cents",
    "score",
];

/// What messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// JSON objects: their fields are the columns.
    Objects,
    /// JSON of which not all are objects: the whole document is one column.
    Documents,
    /// Something else: the text is one column.
    Text,
}

/// A guess.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// What messages are.
    pub shape: Shape,
    /// In the order in which the fields were seen; the host's own time of a message is the last, where it is needed.
    pub columns: Vec<Column>,
    /// The column that tells messages apart.
    pub key: Option<String>,
    /// What should be known beside that.
    pub notes: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Where its values are from.
    pub content: Content,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means to people.
    pub role: Role,
    /// Why so, in words.
    pub why: String,
}

/// Where a column's values are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A field of the object.
    Field(String),
    /// The whole payload.
    Payload,
    /// When the broker stored the message.
    Published,
}

/// What was seen of one field.
#[derive(Default)]
struct Seen {
    name: String,
    values: usize,
    nulls: usize,
    booleans: usize,
    integers: usize,
    too_large: usize,
    reals: usize,
    texts: usize,
    times: usize,
    nested: usize,
    longest: usize,
    distinct: HashSet<String>,
}

/// The fields of an object, in their order.
struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Guesses from messages, of which there is at least one.
pub fn guess(messages: &[Delivery]) -> Guess {
    let objects: Option<Vec<Fields>> = messages
        .iter()
        .map(|message| serde_json::from_slice(&message.payload).ok())
        .collect();
    match objects {
        Some(objects) if objects.iter().any(|fields| !fields.0.is_empty()) => of_objects(&objects),
        _ => of_whole(messages),
    }
}

fn of_whole(messages: &[Delivery]) -> Guess {
    let is_json = |message: &Delivery| serde_json::from_slice::<&RawValue>(&message.payload).is_ok();
    let (shape, name, column_type, why) = match messages.iter().all(is_json) {
        true => (
            Shape::Documents,
            "document",
            ColumnType::Json,
            "not all messages are objects with fields",
        ),
        false => (Shape::Text, "line", ColumnType::Text, "the messages are no JSON"),
    };
    let mut columns = vec![Column {
        name: name.to_owned(),
        content: Content::Payload,
        column_type,
        nullable: false,
        role: Role::None,
        why: why.to_owned(),
    }];
    columns.push(published(&columns));
    Guess {
        shape,
        columns,
        key: None,
        notes: Vec::new(),
    }
}

fn of_objects(objects: &[Fields]) -> Guess {
    let messages = objects.len();
    let mut seen: Vec<Seen> = Vec::new();
    for (name, value) in objects.iter().flat_map(|fields| &fields.0) {
        let index = seen.iter().position(|field| field.name == *name);
        let index = index.unwrap_or_else(|| {
            seen.push(Seen {
                name: name.clone(),
                ..Seen::default()
            });
            seen.len() - 1
        });
        seen[index].look(value);
    }
    let mut columns: Vec<Column> = Vec::new();
    for field in &seen {
        let column = field.column(messages, &columns);
        columns.push(column);
    }
    let mut notes = Vec::new();
    if messages == 1 {
        notes.push(
            "with one message nobody can see which fields may be missing or null: make those an Option"
                .to_owned(),
        );
    }
    for field in seen.iter().filter(|field| field.too_large > 0) {
        notes.push(format!(
            "{} has numbers beyond 64 bits with a sign: it is kept as JSON",
            field.name
        ));
    }
    let time = choose_time(&mut columns);
    let key = choose_key(&seen, &mut columns, messages);
    for (field, column) in seen.iter().zip(&mut columns) {
        if column.role == Role::None && key.as_ref() != Some(&column.name) {
            field.give_role(column, messages);
        }
    }
    choose_entity(&mut columns);
    if !time {
        columns.push(published(&columns));
    }
    if key.is_none() {
        notes.push(
            "no field tells messages apart: an event that is sent twice makes two rows; \
             name a key (primary_key or unique) if there is one"
                .to_owned(),
        );
    }
    Guess {
        shape: Shape::Objects,
        columns,
        key,
        notes,
    }
}

impl Seen {
    fn look(&mut self, value: &RawValue) {
        self.values += 1;
        let tree: Tree = serde_json::from_str(value.get()).unwrap_or(Tree::Null);
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
            Tree::String(text) => {
                self.texts += 1;
                self.times += usize::from(micros(text).is_some());
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

    fn column(&self, messages: usize, others: &[Column]) -> Column {
        let present = self.values - self.nulls;
        let (column_type, mut why) = if present == 0 {
            (ColumnType::Json, "always null".to_owned())
        } else if self.booleans == present {
            (ColumnType::Boolean, String::new())
        } else if self.integers == present {
            (ColumnType::Integer, String::new())
        } else if self.integers + self.reals == present {
            (ColumnType::Real, String::new())
        } else if self.times == present {
            (
                ColumnType::Timestamp,
                "each value is a time in RFC 3339".to_owned(),
            )
        } else if self.texts == present {
            (ColumnType::Text, String::new())
        } else if self.nested == present {
            (
                ColumnType::Json,
                "nested: kept as the document that it is".to_owned(),
            )
        } else if self.too_large > 0 {
            (ColumnType::Json, "numbers beyond 64 bits with a sign".to_owned())
        } else {
            (ColumnType::Json, "values of several types".to_owned())
        };
        let nullable = present < messages;
        if nullable {
            let absent = messages - self.values;
            let gone = match (absent, self.nulls) {
                (0, nulls) => format!("null in {nulls} of {messages}"),
                (absent, 0) => format!("missing in {absent} of {messages}"),
                (absent, nulls) => format!("missing in {absent} and null in {nulls} of {messages}"),
            };
            add(&mut why, &gone);
        }
        Column {
            name: unused(&column_name(&self.name), others),
            content: Content::Field(self.name.clone()),
            column_type,
            nullable,
            role: Role::None,
            why,
        }
    }

    fn give_role(&self, column: &mut Column, messages: usize) {
        let name = column.name.as_str();
        let few = self.distinct.len() <= FACET_VALUES_MAX
            && messages >= FACET_SEEN_MIN
            && self.distinct.len() * 2 <= messages
            && self.longest <= 40;
        let known = FACETS.contains(&name) || FACETS.iter().any(|facet| name.ends_with(&format!("_{facet}")));
        match column.column_type {
            ColumnType::Text if ENTITIES.contains(&name) => {
                column.role = Role::Entity;
                add(&mut column.why, "its name says whom it happened to");
            }
            ColumnType::Text if known && self.longest <= 60 => {
                column.role = Role::Facet;
                add(&mut column.why, "its name says that it has few values");
            }
            ColumnType::Text | ColumnType::Boolean if few && !name.ends_with("_id") => {
                column.role = Role::Facet;
                let values = self.distinct.len();
                add(
                    &mut column.why,
                    &format!("{values} distinct values in {messages}"),
                );
            }
            ColumnType::Integer | ColumnType::Real => {
                if let Some((end, unit)) = UNITS.iter().find(|(end, _)| name.ends_with(end)) {
                    column.role = Role::Measure((*unit).to_owned());
                    add(&mut column.why, &format!("{end} says its unit"));
                } else if column.column_type == ColumnType::Real
                    || QUANTITIES
                        .iter()
                        .any(|end| name == *end || name.ends_with(&format!("_{end}")))
                {
                    column.role = Role::Measure(String::new());
                    add(&mut column.why, "a quantity; its unit is not known");
                }
            }
            _ => {}
        }
    }
}

fn add(why: &mut String, words: &str) {
    if !why.is_empty() {
        why.push_str("; ");
    }
    why.push_str(words);
}

/// Gives one column of times the role; says whether there is one.
fn choose_time(columns: &mut [Column]) -> bool {
    let is_time = |column: &&mut Column| column.column_type == ColumnType::Timestamp && !column.nullable;
    let rank = |column: &&mut Column| {
        let known = TIMES.iter().position(|name| *name == column.name);
        known.unwrap_or(TIMES.len())
    };
    let Some(column) = columns.iter_mut().filter(is_time).min_by_key(rank) else {
        return false;
    };
    column.role = Role::Time;
    add(&mut column.why, "taken for when it happened");
    true
}

/// The column that has another value in each message, if its name says that it is an identity.
fn choose_key(seen: &[Seen], columns: &mut [Column], messages: usize) -> Option<String> {
    let candidate = |known_only: bool| {
        seen.iter().zip(columns.iter()).position(|(field, column)| {
            let plain =
                matches!(column.column_type, ColumnType::Text | ColumnType::Integer) && !column.nullable;
            let distinct = field.distinct.len() == messages.min(DISTINCT_MAX);
            let known = KEYS.contains(&column.name.as_str());
            plain
                && distinct
                && if known_only {
                    known
                } else {
                    messages > 1 && column.name.ends_with("_id")
                }
        })
    };
    let index = candidate(true).or_else(|| candidate(false))?;
    let column = &mut columns[index];
    let why = match messages {
        1 => "taken for what tells messages apart".to_owned(),
        _ => format!("another value in each of {messages} messages: taken for what tells them apart"),
    };
    add(&mut column.why, &why);
    Some(column.name.clone())
}

/// At most one entity is proposed: the first.
fn choose_entity(columns: &mut [Column]) {
    let entities = columns.iter_mut().filter(|column| column.role == Role::Entity);
    for column in entities.skip(1) {
        column.role = Role::None;
        column.why.clear();
    }
}

/// The column for when the broker stored a message.
fn published(others: &[Column]) -> Column {
    Column {
        name: unused("stored_at", others),
        content: Content::Published,
        column_type: ColumnType::Timestamp,
        nullable: false,
        role: Role::Time,
        why: "no field says when it happened: when the broker stored the message".to_owned(),
    }
}

/// A field's name as a column's: `pcId` and `PC-ID` become `pc_id`.
fn column_name(field: &str) -> String {
    let mut name = String::new();
    let mut lower_before = false;
    for character in field.chars() {
        if character.is_ascii_alphanumeric() {
            if character.is_ascii_uppercase() && lower_before {
                name.push('_');
            }
            lower_before = character.is_ascii_lowercase() || character.is_ascii_digit();
            name.push(character.to_ascii_lowercase());
        } else {
            if !name.is_empty() && !name.ends_with('_') {
                name.push('_');
            }
            lower_before = false;
        }
    }
    let mut name = name.trim_end_matches('_').to_owned();
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        name.insert_str(0, "field_");
    }
    if ["crate", "self", "super"].contains(&name.as_str()) {
        name.push_str("_field"); // No language of plugins takes them for a field's name.
    }
    name.truncate(60);
    name
}

fn unused(name: &str, others: &[Column]) -> String {
    let taken = |candidate: &str| others.iter().any(|column| column.name == candidate);
    let mut candidate = name.to_owned();
    let mut number = 2;
    while taken(&candidate) {
        candidate = format!("{name}_{number}");
        number += 1;
    }
    candidate
}

/// The time that a text is for the SDK, which is more lenient than RFC 3339.
fn micros(text: &str) -> Option<i64> {
    let time = DateTime::parse_from_rfc3339(text)
        .or_else(|_| text.parse::<DateTime<FixedOffset>>())
        .ok()?;
    Some(time.timestamp_micros())
}

impl Guess {
    /// The values that a message has in these columns, as fixtures expect them. None where it does not fit.
    pub fn values(&self, message: &Delivery) -> Option<serde_json::Map<String, Tree>> {
        let fields = match self.shape {
            Shape::Objects => serde_json::from_slice::<Fields>(&message.payload).ok()?.0,
            Shape::Documents | Shape::Text => Vec::new(),
        };
        let values = self.columns.iter().map(|column| {
            let value = match &column.content {
                Content::Published => Tree::from(message.published().to_rfc3339()),
                Content::Payload => Tree::from(std::str::from_utf8(&message.payload).ok()?.trim()),
                Content::Field(name) => {
                    let field = fields.iter().find(|(field, _)| field == name);
                    field.map_or(Some(Tree::Null), |(_, raw)| value_of(column, raw))?
                }
            };
            Some((column.name.clone(), value))
        });
        values.collect()
    }
}

fn value_of(column: &Column, raw: &RawValue) -> Option<Tree> {
    let tree: Tree = serde_json::from_str(raw.get()).ok()?;
    if tree.is_null() && column.nullable {
        return Some(Tree::Null);
    }
    Some(match column.column_type {
        ColumnType::Json => Tree::from(raw.get()),
        ColumnType::Real => Tree::from(tree.as_f64()?),
        ColumnType::Timestamp => Tree::from(Timestamp(micros(tree.as_str()?)?).to_rfc3339()),
        _ => tree,
    })
}

#[cfg(test)]
mod tests;
