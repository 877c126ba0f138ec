//! `lantern:projection@0.2.0-test`: a second contract version, which only tests use. It shows that versions coexist: a
//! real second version needs a file like this and an arm in each `match` of `bindings`.

use wasmtime::component::{Linker, WasmStr};
use wasmtime::{Result, Store};

use super::super::guest_state::GuestState;
use super::super::log::LogLevel;
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass, Row, Value};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Origin, RawColumn, RawManifest, RawOnConflict, RawSource, RawTable, RawWrite,
};

mod generated {
    wasmtime::component::bindgen!({ path: "src/bindings/v0_2_test.wit", world: "plugin" });
}

use generated::exports::lantern::projection::projector as wit;

pub(super) const EXPORT: &str = "lantern:projection/projector@0.2.0-test";
pub(super) const IMPORT: &str = "lantern:projection/log@0.2.0-test";

pub(super) type Pre = generated::PluginPre<GuestState>;
pub(super) type Guest = generated::Plugin;

pub(super) fn link(linker: &mut Linker<GuestState>) -> Result<()> {
    linker
        .instance(IMPORT)?
        .func_wrap("log", |store, (text,): (WasmStr,)| {
            if let Some(line) = store.data().log_line() {
                line.write(LogLevel::Info, &text.to_str(&store)?);
            }
            Ok(())
        })
}

pub(super) fn describe(guest: &Guest, store: &mut Store<GuestState>) -> Result<RawManifest> {
    let described = guest.lantern_projection_projector().call_describe(store)?;
    let column = RawColumn {
        name: described.column.clone(),
        column_type: ColumnType::Integer,
        nullable: false,
        role: DeclaredRole::None,
        doc: String::new(),
        hints: Vec::new(),
    };
    let table = RawTable {
        name: described.table.clone(),
        doc: String::new(),
        columns: vec![column],
        primary_key: Vec::new(),
        indexes: Vec::new(),
        retention_days: None,
        hints: Vec::new(),
    };
    let source = RawSource {
        name: "only".to_owned(),
        origin: Origin::JetStream {
            stream: described.stream_name,
            subjects: Vec::new(),
        },
        wants_headers: false,
    };
    let write = RawWrite {
        table: described.table,
        columns: vec![described.column],
        on_conflict: RawOnConflict::Fail,
    };
    Ok(RawManifest {
        name: described.name,
        version: described.version,
        doc: String::new(),
        sources: vec![source],
        tables: vec![table],
        writes: vec![write],
    })
}

pub(super) fn project(
    guest: &Guest,
    store: &mut Store<GuestState>,
    deliveries: &[Delivery],
) -> Result<Vec<Outcome>> {
    let messages: Vec<wit::Message> = deliveries
        .iter()
        .map(|delivery| wit::Message {
            sequence: delivery.sequence,
            payload: delivery.payload.to_vec(),
        })
        .collect();
    let answers = guest
        .lantern_projection_projector()
        .call_project(store, &messages)?;
    let outcome = |answer: std::result::Result<i64, String>| match answer {
        Ok(value) => Outcome::Rows(vec![Row {
            write: 0,
            values: vec![Value::Integer(value)],
        }]),
        Err(reason) => Outcome::Reject(Rejection::new(RejectionClass::Invalid, &reason)),
    };
    Ok(answers.into_iter().map(outcome).collect())
}
