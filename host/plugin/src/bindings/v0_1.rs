//! `lantern:projection@0.1.0`: generated types, and conversions to and from the host's own. Nothing outside `bindings`
//! sees a generated type.

use wasmtime::Result;
use wasmtime::component::{Linker, WasmStr};

use super::super::guest_state::GuestState;
use super::super::log::{ERROR_BYTES_MAX, LogLevel};
use super::Shape;
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass, Row, Timestamp, Value, clean_text};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Merge, Origin, RawColumn, RawGuard, RawIndex, RawManifest, RawOnConflict,
    RawSource, RawTable, RawWrite,
};

#[allow(missing_docs, reason = "the contract in wit/ documents these items")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/projection@0.1.0",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use generated::exports::lantern::projection::projector as wit;
use generated::lantern::projection::log::Level;

/// The interface that a plugin of this version exports.
pub(super) const EXPORT: &str = "lantern:projection/projector@0.1.0";
/// The only interface that it may import.
pub(super) const IMPORT: &str = "lantern:projection/log@0.1.0";

pub(super) type Pre = generated::PluginPre<GuestState>;
pub(super) type Guest = generated::Plugin;

/// Links the guest's only import. Written by hand because the generated trait would copy a text of any length out of
/// the guest before it could be dropped.
pub(super) fn link(linker: &mut Linker<GuestState>) -> Result<()> {
    linker
        .instance(IMPORT)?
        .func_wrap("log", |mut store, (level, text): (Level, WasmStr)| {
            let line = store.data().log_line();
            // The description of a trap needs the last error even if the rate limit drops its line.
            if line.is_none() && level != Level::Error {
                return Ok(());
            }
            let text = text.to_str(&store)?;
            if let Some(line) = line {
                line.write(LogLevel::from(level), &text);
            }
            if level == Level::Error {
                let message = clean_text(&text, ERROR_BYTES_MAX);
                store.data_mut().record_error(message);
            }
            Ok(())
        })
}

/// Calls an instance's `describe`.
pub(super) fn describe(guest: &Guest, store: &mut wasmtime::Store<GuestState>) -> Result<RawManifest> {
    guest
        .lantern_projection_projector()
        .call_describe(store)
        .map(RawManifest::from)
}

/// Passes messages to an instance. The payloads are copied once, from the broker's buffer into the guest.
pub(super) fn project(
    guest: &Guest,
    store: &mut wasmtime::Store<GuestState>,
    source: u32,
    shape: Shape,
    deliveries: &[Delivery],
) -> Result<Vec<Outcome>> {
    let headers: Vec<(&str, &str)> = if shape.wants_headers {
        deliveries
            .iter()
            .flat_map(|d| &d.headers)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    } else {
        Vec::new()
    };
    let mut rest = headers.as_slice();
    let messages: Vec<wit::Message<'_>> = deliveries
        .iter()
        .map(|delivery| {
            let count = if shape.wants_headers {
                delivery.headers.len()
            } else {
                0
            };
            let (headers, others) = rest.split_at(count);
            rest = others;
            wit::Message {
                subject: &delivery.subject,
                sequence: if shape.has_positions { delivery.sequence } else { 0 },
                published: delivery.published().0,
                headers,
                payload: &delivery.payload,
            }
        })
        .collect();
    let outcomes = guest
        .lantern_projection_projector()
        .call_project(store, source, &messages)?;
    Ok(outcomes.into_iter().map(Outcome::from).collect())
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

impl From<wit::Outcome> for Outcome {
    fn from(outcome: wit::Outcome) -> Self {
        match outcome {
            wit::Outcome::Rows(rows) => Self::Rows(rows.into_iter().map(Row::from).collect()),
            wit::Outcome::Skip => Self::Skip,
            wit::Outcome::Reject(rejection) => Self::Reject(Rejection::new(
                match rejection.class {
                    wit::RejectionClass::Malformed => RejectionClass::Malformed,
                    wit::RejectionClass::Unsupported => RejectionClass::Unsupported,
                    wit::RejectionClass::Invalid => RejectionClass::Invalid,
                },
                &rejection.reason,
            )),
        }
    }
}

impl From<wit::Row> for Row {
    fn from(row: wit::Row) -> Self {
        // Both value types have the same size, so the collection happens in place, without an allocation.
        Self {
            write: row.write,
            values: row.values.into_iter().map(Value::from).collect(),
        }
    }
}

impl From<wit::Value> for Value {
    fn from(value: wit::Value) -> Self {
        match value {
            wit::Value::Null => Self::Null,
            wit::Value::Boolean(value) => Self::Boolean(value),
            wit::Value::Integer(value) => Self::Integer(value),
            wit::Value::Real(value) => Self::Real(value),
            wit::Value::Text(value) => Self::Text(value),
            wit::Value::Blob(value) => Self::Blob(value),
            wit::Value::Timestamp(value) => Self::Timestamp(Timestamp(value)),
            wit::Value::Json(value) => Self::Json(value),
        }
    }
}

fn all<A, B: From<A>>(items: Vec<A>) -> Vec<B> {
    items.into_iter().map(B::from).collect()
}

impl From<wit::Manifest> for RawManifest {
    fn from(manifest: wit::Manifest) -> Self {
        let wit::Manifest {
            name,
            version,
            doc,
            sources,
            tables,
            writes,
        } = manifest;
        Self {
            name,
            version,
            doc,
            sources: all(sources),
            tables: all(tables),
            writes: all(writes),
        }
    }
}

impl From<wit::Source> for RawSource {
    fn from(source: wit::Source) -> Self {
        let origin = match source.origin {
            wit::Origin::Jetstream(wit::StreamSource {
                stream_name,
                subjects,
            }) => Origin::JetStream {
                stream: stream_name,
                subjects,
            },
            wit::Origin::Core(subjects) => Origin::Core { subjects },
        };
        Self {
            name: source.name,
            origin,
            wants_headers: source.wants_headers,
        }
    }
}

impl From<wit::Table> for RawTable {
    fn from(table: wit::Table) -> Self {
        let wit::Table {
            name,
            doc,
            columns,
            primary_key,
            indexes,
            retention_days,
            hints,
        } = table;
        Self {
            name,
            doc,
            columns: all(columns),
            primary_key,
            indexes: all(indexes),
            retention_days,
            hints,
        }
    }
}

impl From<wit::Column> for RawColumn {
    fn from(column: wit::Column) -> Self {
        let wit::Column {
            name,
            column_type,
            nullable,
            role,
            doc,
            hints,
        } = column;
        let column_type = match column_type {
            wit::ColumnType::Boolean => ColumnType::Boolean,
            wit::ColumnType::Integer => ColumnType::Integer,
            wit::ColumnType::Real => ColumnType::Real,
            wit::ColumnType::Text => ColumnType::Text,
            wit::ColumnType::Blob => ColumnType::Blob,
            wit::ColumnType::Timestamp => ColumnType::Timestamp,
            wit::ColumnType::Json => ColumnType::Json,
        };
        let role = match role {
            wit::Role::None => DeclaredRole::None,
            wit::Role::Time => DeclaredRole::Time,
            wit::Role::Entity => DeclaredRole::Entity,
            wit::Role::Facet => DeclaredRole::Facet,
            wit::Role::Measure(unit) => DeclaredRole::Measure(unit),
        };
        Self {
            name,
            column_type,
            nullable,
            role,
            doc,
            hints,
        }
    }
}

impl From<wit::Index> for RawIndex {
    fn from(index: wit::Index) -> Self {
        Self {
            columns: index.columns,
            unique: index.unique,
        }
    }
}

impl From<wit::Write> for RawWrite {
    fn from(write: wit::Write) -> Self {
        let on_conflict = match write.on_conflict {
            wit::OnConflict::Fail => RawOnConflict::Fail,
            wit::OnConflict::Ignore => RawOnConflict::Ignore,
            wit::OnConflict::Update(wit::UpdateRule { key, merges, guard }) => RawOnConflict::Update {
                key,
                merges: merges
                    .into_iter()
                    .map(|rule| (rule.column, Merge::from(rule.merge)))
                    .collect(),
                guard: match guard {
                    wit::Guard::Always => RawGuard::Always,
                    wit::Guard::WhileNull(column) => RawGuard::WhileNull(column),
                    wit::Guard::Newer(column) => RawGuard::Newer(column),
                },
            },
        };
        Self {
            table: write.table,
            columns: write.columns,
            on_conflict,
        }
    }
}

impl From<wit::Merge> for Merge {
    fn from(merge: wit::Merge) -> Self {
        match merge {
            wit::Merge::Replace => Self::Replace,
            wit::Merge::Keep => Self::Keep,
            wit::Merge::Fill => Self::Fill,
            wit::Merge::Add => Self::Add,
            wit::Merge::Min => Self::Min,
            wit::Merge::Max => Self::Max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_converted_in_place() {
        assert_eq!(size_of::<wit::Value>(), size_of::<Value>());
        assert_eq!(size_of::<wit::Row>(), size_of::<Row>());
    }
}
