//! Derives a table from sample messages: columns with types and roles, and a key. The author reviews the proposal, so each
//! column has a reason.

mod field;

use std::collections::HashMap;
use std::fmt;

use chrono::{DateTime, FixedOffset};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value as Tree;
use serde_json::value::RawValue;

use lantern_model::batch::{Delivery, Timestamp, Value};
use lantern_model::limits::SYSTEM_COLUMNS;
use lantern_model::schema::{ColumnType, DeclaredRole};

use field::FieldStats;

/// Number of distinct values of a field that are counted.
const DISTINCT_MAX: usize = 1_000;
/// Field names of the event time, by priority.
const TIME_NAMES: [&str; 12] = [
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
/// Field names of an event's identity.
const KEY_NAMES: [&str; 5] = ["id", "uuid", "guid", "event_id", "message_id"];
/// Fewest messages from which any other field whose name ends in `_id` is taken as the key. In fewer messages, an identifier of
/// something else, such as a connection or a transaction, often looks distinct.
const KEY_MESSAGES_MIN: usize = 50;
/// Most columns that are derived from fields; a table has at most 256 columns.
const FIELDS_MAX: usize = 255;

/// Format of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// JSON objects; their fields become columns.
    Objects,
    /// JSON values, not all of them objects; the whole value is one column.
    Documents,
    /// Other text; the whole text is one column.
    Text,
}

/// A derived table.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Format of the messages.
    pub shape: Shape,
    /// Columns in the order of the fields; the time of publication is last, if there is no other time.
    pub columns: Vec<Column>,
    /// The column that identifies an event.
    pub key: Option<String>,
    /// Notes for the author.
    pub notes: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Origin of the values.
    pub content: Content,
    /// Type.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// DeclaredRole in the dashboard.
    pub role: DeclaredRole,
    /// Reason for type and role.
    pub reason: String,
}

/// Origin of a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A field of the object.
    Field(String),
    /// The whole payload.
    Payload,
    /// Time at which the broker stored the message.
    Published,
}

/// The fields of an object, in order.
struct Fields {
    /// Names and values. A repeated field has its last value, as most parsers read it.
    fields: Vec<(String, Box<RawValue>)>,
    /// The first field that occurs more than once.
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let (mut fields, mut repeated) = (Vec::new(), None);
                let mut indexes: HashMap<String, usize> = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    match indexes.get(&name) {
                        Some(&index) => {
                            fields[index] = (name.clone(), value);
                            repeated.get_or_insert(name);
                        }
                        None => {
                            indexes.insert(name.clone(), fields.len());
                            fields.push((name, value));
                        }
                    }
                }
                Ok(Fields { fields, repeated })
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Derives a table with this name from at least one message: the first of these in which a message can be stored.
///
/// 1. A column for each field, if all messages are JSON objects.
/// 2. One column with the JSON document.
/// 3. One column with the text.
pub fn guess(messages: &[Delivery], table: &str) -> Guess {
    let stores_a_message = |guess: &Guess| messages.iter().any(|message| guess.values(message).is_ok());
    let objects = objects(messages);
    let is_object = objects.is_some();
    let by_field = objects.map(|objects| guess_from_objects(&objects, table));
    if let Some(guess) = by_field.filter(stores_a_message) {
        return guess;
    }
    let reason = match is_object {
        true => "no message can be stored in a column for each field",
        false => "not all messages are JSON objects",
    };
    let document = one_column(Shape::Documents, "document", ColumnType::Json, reason);
    if messages.iter().all(is_json) && stores_a_message(&document) {
        return document;
    }
    let reason = match messages.iter().all(is_json) {
        true => "no message can be stored as JSON",
        false => "the messages are not JSON",
    };
    one_column(Shape::Text, "line", ColumnType::Text, reason)
}

/// The messages, if all are JSON objects and any has fields.
fn objects(messages: &[Delivery]) -> Option<Vec<Fields>> {
    let objects = messages
        .iter()
        .map(|message| serde_json::from_slice(&message.payload).ok());
    let objects: Vec<Fields> = objects.collect::<Option<_>>()?;
    let has_fields = objects.iter().any(|object| !object.fields.is_empty());
    has_fields.then_some(objects)
}

fn is_json(message: &Delivery) -> bool {
    serde_json::from_slice::<&RawValue>(&message.payload).is_ok()
}

/// A table with the whole payload in one column.
fn one_column(shape: Shape, name: &str, column_type: ColumnType, reason: &str) -> Guess {
    let mut columns = vec![Column {
        name: name.to_owned(),
        content: Content::Payload,
        column_type,
        nullable: false,
        role: DeclaredRole::None,
        reason: reason.to_owned(),
    }];
    columns.push(published(&columns));
    Guess {
        shape,
        columns,
        key: None,
        notes: Vec::new(),
    }
}

fn guess_from_objects(objects: &[Fields], table: &str) -> Guess {
    let messages = objects.len();
    let mut stats = field_stats(objects);
    let mut notes = Vec::new();
    if stats.len() > FIELDS_MAX {
        notes.push(format!(
            "the messages have {} fields, and a table has at most 256 columns: the first {FIELDS_MAX} become columns",
            stats.len()
        ));
        stats.truncate(FIELDS_MAX);
    }
    let mut columns: Vec<Column> = Vec::new();
    for field in &stats {
        let column = field.column(messages, &columns);
        columns.push(column);
    }
    if messages == 1 {
        notes.push(
            "one message does not show which fields are optional: make those fields nullable".to_owned(),
        );
    }
    for field in stats.iter().filter(|field| field.too_large > 0) {
        notes.push(format!(
            "{} has numbers that do not fit a signed 64-bit integer: stored as JSON",
            field.name
        ));
    }
    let has_time = choose_time(&mut columns);
    let key = choose_key(&stats, &mut columns, messages, table);
    for (field, column) in stats.iter().zip(&mut columns) {
        if column.role == DeclaredRole::None && key.as_ref() != Some(&column.name) {
            field.assign_role(column, messages);
        }
    }
    choose_entity(&mut columns);
    if !has_time {
        columns.push(published(&columns));
    }
    if key.is_none() {
        notes.extend(unproven_key(&stats, &columns, messages));
        notes.push(
            "no field identifies an event: a duplicate event adds a second row; \
             set a key (primary_key or unique) if there is one"
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

/// The statistics of each field, in the order of its first occurrence.
fn field_stats(objects: &[Fields]) -> Vec<FieldStats> {
    let mut stats: Vec<FieldStats> = Vec::new();
    for (name, value) in objects.iter().flat_map(|object| &object.fields) {
        let index = stats.iter().position(|field| field.name == *name);
        let index = index.unwrap_or_else(|| {
            stats.push(FieldStats::new(name));
            stats.len() - 1
        });
        stats[index].add(value);
    }
    stats
}

fn append_reason(reason: &mut String, more: &str) {
    if !reason.is_empty() {
        reason.push_str("; ");
    }
    reason.push_str(more);
}

/// Assigns the time role to one column. Returns whether there is one.
fn choose_time(columns: &mut [Column]) -> bool {
    let is_time = |column: &&mut Column| column.column_type == ColumnType::Timestamp && !column.nullable;
    let rank = |column: &&mut Column| {
        let known = TIME_NAMES.iter().position(|name| *name == column.name);
        known.unwrap_or(TIME_NAMES.len())
    };
    let Some(column) = columns.iter_mut().filter(is_time).min_by_key(rank) else {
        return false;
    };
    column.role = DeclaredRole::Time;
    append_reason(&mut column.reason, "used as the event time");
    true
}

/// Whether every message has another value in this column.
fn is_distinct(field: &FieldStats, column: &Column, messages: usize) -> bool {
    let plain = matches!(column.column_type, ColumnType::Text | ColumnType::Integer) && !column.nullable;
    plain && field.distinct.len() == messages.min(DISTINCT_MAX)
}

/// Chooses a column with distinct values whose name indicates the identity of the event.
fn choose_key(stats: &[FieldStats], columns: &mut [Column], messages: usize, table: &str) -> Option<String> {
    let own = format!("{}_id", table.strip_suffix('s').unwrap_or(table));
    let find = |fits: &dyn Fn(&str) -> bool| {
        stats
            .iter()
            .zip(columns.iter())
            .position(|(field, column)| is_distinct(field, column, messages) && fits(&column.name))
    };
    let known = find(&|name| KEY_NAMES.contains(&name) || name == own);
    let index = known.or_else(|| find(&|name| messages >= KEY_MESSAGES_MIN && name.ends_with("_id")))?;
    let column = &mut columns[index];
    let reason = match messages {
        1 => "used as the key".to_owned(),
        _ => format!("distinct in {messages} messages; used as the key"),
    };
    append_reason(&mut column.reason, &reason);
    Some(column.name.clone())
}

/// A note about a column that may be the key, but not by the evidence of these messages.
fn unproven_key(stats: &[FieldStats], columns: &[Column], messages: usize) -> Option<String> {
    let mut fields = stats.iter().zip(columns);
    let (_, column) = fields
        .find(|(field, column)| is_distinct(field, column, messages) && column.name.ends_with("_id"))?;
    Some(format!(
        "{} is distinct in {messages} messages, which are too few to use it as the key: with a wrong key, events are lost",
        column.name
    ))
}

/// Keeps only the first entity.
fn choose_entity(columns: &mut [Column]) {
    let entities = columns
        .iter_mut()
        .filter(|column| column.role == DeclaredRole::Entity);
    for column in entities.skip(1) {
        column.role = DeclaredRole::None;
        column.reason.clear();
    }
}

/// A column with the time at which the broker stored the message.
fn published(others: &[Column]) -> Column {
    Column {
        name: unused("stored_at", others),
        content: Content::Published,
        column_type: ColumnType::Timestamp,
        nullable: false,
        role: DeclaredRole::Time,
        reason: "no field has a time; the time at which the broker stored the message".to_owned(),
    }
}

/// Converts a field name to a column name: `pcId` and `PC-ID` become `pc_id`.
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
    // Not valid as the name of a field or a column.
    if ["crate", "self", "super"].contains(&name.as_str()) || SYSTEM_COLUMNS.contains(&name.as_str()) {
        name.push_str("_field");
    }
    name.truncate(59); // A name has at most 63 characters, and `unused` appends up to four.
    name
}

fn unused(name: &str, others: &[Column]) -> String {
    let is_used = |candidate: &str| others.iter().any(|column| column.name == candidate);
    let mut candidate = name.to_owned();
    let mut number = 2;
    while is_used(&candidate) {
        candidate = format!("{name}_{number}");
        number += 1;
    }
    candidate
}

/// Parses a time like the SDK, which is more lenient than RFC 3339. `None` for times that no column can store.
fn parse_time(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text)
        .or_else(|_| text.parse::<DateTime<FixedOffset>>())
        .ok()?;
    Some(Timestamp(time.timestamp_micros())).filter(|time| time.is_admissible())
}

impl Guess {
    /// The row of a message: its values by column.
    ///
    /// # Errors
    /// Why the message does not become a row.
    pub fn values(&self, message: &Delivery) -> Result<Vec<(&str, Value)>, String> {
        let fields = match self.shape {
            Shape::Objects => fields(message)?,
            Shape::Documents | Shape::Text => Vec::new(),
        };
        let values = self.columns.iter().map(|column| {
            let mut value = match &column.content {
                Content::Published => Value::Timestamp(message.published()),
                Content::Payload => payload(message, column.column_type)?,
                Content::Field(name) => match fields.iter().find(|(field, _)| field == name) {
                    Some((_, raw)) => field_value(column, raw)?,
                    None => Value::Null,
                },
            };
            let checked = column.column_type.check(&mut value, column.nullable);
            checked.map_err(|problem| format!("{}: {problem}", column.name))?;
            Ok((column.name.as_str(), value))
        });
        values.collect()
    }
}

/// The fields of a message that is an object.
fn fields(message: &Delivery) -> Result<Vec<(String, Box<RawValue>)>, String> {
    let object: Fields = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
    match object.repeated {
        None => Ok(object.fields),
        Some(name) => Err(format!(
            "the field {name:?} occurs more than once; a plugin in Rust rejects the message, JavaScript and Python use \
             the last value"
        )),
    }
}

fn payload(message: &Delivery, column_type: ColumnType) -> Result<Value, String> {
    let text = std::str::from_utf8(&message.payload).map_err(|error| format!("not UTF-8: {error}"))?;
    let text = text.trim().to_owned();
    Ok(match column_type {
        ColumnType::Json => Value::Json(text),
        _ => Value::Text(text),
    })
}

fn field_value(column: &Column, raw: &RawValue) -> Result<Value, String> {
    if raw.get() == "null" && column.nullable {
        return Ok(Value::Null);
    }
    if column.column_type == ColumnType::Json {
        // Not parsed: JSON may contain what no library can represent.
        return Ok(Value::Json(raw.get().to_owned()));
    }
    let tree: Tree = serde_json::from_str(raw.get()).map_err(|error| format!("{}: {error}", column.name))?;
    let value = match column.column_type {
        ColumnType::Boolean => tree.as_bool().map(Value::Boolean),
        ColumnType::Integer => tree.as_i64().map(Value::Integer),
        ColumnType::Real => tree.as_f64().map(Value::Real),
        ColumnType::Timestamp => tree.as_str().and_then(parse_time).map(Value::Timestamp),
        _ => tree.as_str().map(|text| Value::Text(text.to_owned())),
    };
    value.ok_or_else(|| format!("{}: not of type {}", column.name, column.column_type))
}

#[cfg(test)]
mod tests;
