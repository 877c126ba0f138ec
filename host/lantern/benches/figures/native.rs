//! The `obs-events` plugin compiled into the benchmark: the decoder without WebAssembly, and its declared tables as
//! SQL.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass, Row, Timestamp, Value};
use lantern_plugin::{Compiler, Loader, NativeGuest, Plugin};
use lantern_sdk::{Message, native};
use lantern_store::{Engine, statement};
use obs_events::ObsEvents;

/// The decoder of the plugin, called directly.
pub struct Guest;

impl NativeGuest for Guest {
    fn project(&mut self, source: u32, messages: &[Delivery]) -> Vec<Outcome> {
        let messages: Vec<Message<'_>> = messages
            .iter()
            .map(|delivery| Message {
                subject: &delivery.subject,
                sequence: delivery.sequence,
                published: lantern_sdk::Timestamp::from_micros(delivery.published().0),
                headers: &delivery.headers,
                payload: &delivery.payload,
            })
            .collect();
        native::project::<ObsEvents>(source as usize, &messages)
            .into_iter()
            .map(outcome)
            .collect()
    }
}

fn outcome(outcome: native::Outcome) -> Outcome {
    match outcome {
        native::Outcome::Rows(rows) => Outcome::Rows(
            rows.into_iter()
                .map(|row| Row {
                    write: row.write,
                    values: row.values.into_iter().map(value).collect(),
                })
                .collect(),
        ),
        native::Outcome::Skip => Outcome::Skip,
        native::Outcome::Reject(rejection) => {
            Outcome::Reject(Rejection::new(RejectionClass::Malformed, &rejection.reason))
        }
    }
}

fn value(value: native::Value) -> Value {
    match value {
        native::Value::Null => Value::Null,
        native::Value::Boolean(yes) => Value::Boolean(yes),
        native::Value::Integer(integer) => Value::Integer(integer),
        native::Value::Real(real) => Value::Real(real),
        native::Value::Text(text) => Value::Text(text),
        native::Value::Blob(bytes) => Value::Blob(bytes),
        native::Value::Timestamp(time) => Value::Timestamp(Timestamp(time)),
        native::Value::Json(text) => Value::Json(text),
    }
}

/// Loads the `obs-events` plugin; this process compiles it.
pub fn plugin() -> anyhow::Result<Arc<Plugin>> {
    let folder = std::env::var("LANTERN_PLUGINS").unwrap_or_else(|_| "target/plugins".to_owned());
    let path = Path::new(&folder).join("obs-events.wasm");
    let bytes = std::fs::read(&path)
        .with_context(|| format!("read {} (cargo xtask plugins builds it)", path.display()))?;
    let loader = Loader::new(lantern_plugin::EngineConfig::new(Compiler::InProcess), [0; 32])?;
    Ok(loader.load(&bytes)?)
}

/// Returns the schema and insert statements that the store creates for the plugin.
pub fn statements(engine: Engine) -> anyhow::Result<(Vec<String>, String)> {
    let plugin = plugin()?;
    let manifest = plugin.manifest();
    let schema = manifest
        .tables
        .iter()
        .flat_map(|table| statement::statements_of_new_table(table, engine))
        .collect();
    Ok((schema, statement::insert(manifest, &manifest.writes[0], engine)))
}
