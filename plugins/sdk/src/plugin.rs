//! Plugins: sources with handlers, and the rows of a message.

use std::marker::PhantomData;

use crate::bindings::exports::lantern::projection::projector::{Outcome, Row as RowData};
use crate::declare;
use crate::{Message, Result, Value};

/// A plugin: its sources and its writes.
///
/// It is a pure function of its messages, without clock, files and random numbers. An outcome must depend only on its message,
/// because a replay may split the messages into other batches.
///
/// ```
/// use lantern_sdk::prelude::*;
/// use serde::Deserialize;
///
/// lantern_sdk::export!(Doors);
///
/// /// Opened doors.
/// struct Doors;
///
/// impl Plugin for Doors {
///     const SOURCES: Sources<Self> = &[
///         Source::stream("opened", "DOORS", &["door.*.opened"], opened),
///         Source::core("closed", &["door.*.closed"], closed),
///     ];
///     const WRITES: Writes = &[Opening::WRITE];
/// }
///
/// /// Openings of doors.
/// #[derive(Deserialize, Table, Row)]
/// #[table(name = "openings")]
/// struct Opening {
///     #[column(entity)]
///     door: String,
///     #[column(time)]
///     at: Timestamp,
/// }
///
/// fn opened(message: &Message<'_>, rows: &mut Rows<Doors>) -> Result {
///     rows.put(message.json::<Opening>()?);
///     Ok(())
/// }
///
/// // A message without rows is counted as skipped.
/// fn closed(_: &Message<'_>, _: &mut Rows<Doors>) -> Result {
///     Ok(())
/// }
/// #
/// # let payload = br#"{"door":"north","at":"2026-05-28T10:41:00Z"}"#;
/// # let outcomes = lantern_sdk::native::project::<Doors>(0, &[Message { payload, ..Message::default() }]);
/// # assert!(matches!(&outcomes[0], lantern_sdk::native::Outcome::Rows(rows) if rows.len() == 1));
/// ```
pub trait Plugin: Package + Sized + 'static {
    /// The sources with their handlers.
    const SOURCES: Sources<Self>;
    /// The writes. Their tables are the tables of the plugin.
    const WRITES: Writes;
}

/// The name, version and description of a plugin, which [`export!`](crate::export) takes from its Cargo package.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not exported",
    note = "add `lantern_sdk::export!({Self});`, which takes the plugin's name and version from the Cargo package"
)]
pub trait Package {
    /// Unique in the host: lowercase letters, digits and `-`.
    const NAME: &'static str;
    /// A semantic version.
    const VERSION: &'static str;
    /// A description; may be empty.
    const DOC: &'static str;
}

/// A table, declared by a struct whose fields are its columns: `#[derive(Table)]`.
///
/// The type of a field is the type of the column, an `Option` makes it nullable, and the doc comment is its description.
///
/// ```
/// use lantern_sdk::{Json, Table, Timestamp};
///
/// /// Samples of a sensor.
/// #[derive(Table)]
/// #[table(
///     name = "samples",
///     primary_key = [sensor, at],        // without a key, rows never conflict
///     unique = [serial],                 // rows with a null value never conflict
///     index = [at],
///     retention_days = 30,               // requires a time column
///     view("Outdoors", "kind=outdoor"),  // a view of the dashboard: the query of its address
///     hint("chart", "line")              // other hints for the API, CLI and dashboard
/// )]
/// struct Sample {
///     /// The sensor.
///     #[column(entity)]                  // the subject of the event
///     sensor: String,
///     #[column(time)]                    // the time of the event
///     at: Timestamp,
///     #[column(facet)]                   // few distinct values, for filters
///     kind: String,
///     #[column(measure = "Cel")]         // a quantity, with its UCUM unit
///     temperature: Option<f64>,
///     #[column(name = "serial")]
///     serial_number: Option<i64>,
///     raw: Json,
/// }
/// # assert_eq!(Sample::TABLE.hints[0], ("view.Outdoors", "kind=outdoor"));
/// # assert_eq!(Sample::TABLE.columns[4].name, "serial");
/// # assert_eq!(Sample::TABLE.doc, "Samples of a sensor.");
/// ```
///
/// For rows with a duration, `span_end = column` names the column with the end time. `lane = column` names the column with the
/// lane of the timeline; the default is the first facet.
///
/// A nullable primary key and a time column other than [`Timestamp`](crate::Timestamp) do not compile:
///
/// ```compile_fail
/// #[derive(lantern_sdk::Table)]
/// #[table(name = "samples", primary_key = [sensor])]
/// struct Sample { sensor: Option<String> }
/// ```
///
/// ```compile_fail
/// #[derive(lantern_sdk::Table)]
/// #[table(name = "samples")]
/// struct Sample { #[column(time)] at: i64 }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a table",
    note = "add `#[derive(Table)]`, or name the table of another struct: `#[row(table = …)]`"
)]
pub trait Table {
    /// The declaration.
    const TABLE: declare::Table;
}

/// Rows of one write, declared by a struct: `#[derive(Row)]`.
///
/// The fields are the columns of the rows. Without `table = …` the struct is its own table. Other columns of the table are null in
/// new rows. `on_conflict` is `fail` (the default), `ignore`, or `update`:
///
/// ```
/// use lantern_sdk::{Row, Table, Timestamp};
///
/// /// The latest sample of each sensor.
/// #[derive(Table)]
/// #[table(name = "sensors", primary_key = [sensor])]
/// struct Sensor {
///     sensor: String,
///     at: Option<Timestamp>,
///     highest: Option<f64>,
///     samples: Option<i64>,
///     owner: Option<String>,
/// }
///
/// #[derive(Row)]
/// #[row(table = Sensor, on_conflict = update(
///     key = [sensor],          // the primary key or a unique index
///     newer = at,              // condition; or `while_null = column`; the default is always
///     replace = [at],          // including with null
///     max = [highest],         // or `min`
///     add = [samples],         // or `fill`: only if the stored value is null; others are kept
/// ))]
/// struct Sample {
///     sensor: String,
///     at: Timestamp,
///     highest: f64,
///     samples: i64,
/// }
/// # assert_eq!(Sample::WRITE.columns, ["sensor", "at", "highest", "samples"]);
/// ```
///
/// Mismatches do not compile: another type than that of the column, a missing column that is not nullable, a key that the table
/// does not have.
///
/// ```compile_fail
/// # use lantern_sdk::{Row, Table};
/// #[derive(Table)]
/// #[table(name = "sensors", primary_key = [sensor])]
/// struct Sensor { sensor: String }
///
/// #[derive(Row)]
/// #[row(table = Sensor)]
/// struct Sample { sensor: i64 } // the column is text
/// ```
///
/// ```compile_fail
/// # use lantern_sdk::{Row, Table};
/// #[derive(Table)]
/// #[table(name = "sensors", primary_key = [sensor])]
/// struct Sensor { sensor: String, place: String }
///
/// #[derive(Row)]
/// #[row(table = Sensor)]
/// struct Sample { sensor: String } // `place` cannot be null
/// ```
///
/// ```compile_fail
/// # use lantern_sdk::{Row, Table};
/// #[derive(Table)]
/// #[table(name = "sensors", primary_key = [sensor])]
/// struct Sensor { sensor: String, place: String }
///
/// #[derive(Row)]
/// #[row(table = Sensor, on_conflict = update(key = [place], replace = [sensor]))] // not a key of the table
/// struct Sample { sensor: String, place: String }
/// ```
pub trait Row {
    /// The declaration.
    const WRITE: declare::Write;

    /// One value per column of [`Self::WRITE`], in order.
    fn into_values(self) -> Vec<Value>;
}

/// The type of [`Plugin::SOURCES`].
pub type Sources<P> = &'static [Source<P>];
/// The type of [`Plugin::WRITES`].
pub type Writes = &'static [declare::Write];

/// A source of messages with its handler.
#[derive(Debug)]
pub struct Source<P> {
    pub(crate) name: &'static str,
    pub(crate) origin: SourceOrigin,
    pub(crate) wants_headers: bool,
    handler: Handler<P>,
}

/// Handles one message: puts its rows, puts none to skip it, or returns a rejection. After a rejection no row is stored.
pub type Handler<P> = fn(&Message<'_>, &mut Rows<P>) -> Result;

/// The origin of the messages of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SourceOrigin {
    JetStream {
        stream: &'static str,
        subjects: &'static [&'static str],
    },
    Core {
        subjects: &'static [&'static str],
    },
}

impl<P> Source<P> {
    /// Messages of a JetStream stream on these subjects (with `*` and `>`; empty means all). The host stores the checkpoint under
    /// `name` and processes each message exactly once.
    pub const fn stream(
        name: &'static str,
        stream: &'static str,
        subjects: &'static [&'static str],
        handler: Handler<P>,
    ) -> Self {
        Self {
            name,
            origin: SourceOrigin::JetStream { stream, subjects },
            wants_headers: false,
            handler,
        }
    }

    /// Core NATS subjects, without checkpoint and replay: messages published while the host is not running are lost.
    pub const fn core(name: &'static str, subjects: &'static [&'static str], handler: Handler<P>) -> Self {
        Self {
            name,
            origin: SourceOrigin::Core { subjects },
            wants_headers: false,
            handler,
        }
    }

    /// Requests the headers of the messages.
    pub const fn with_headers(mut self) -> Self {
        self.wants_headers = true;
        self
    }

    /// The name of the source and its checkpoint.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The subjects of the source.
    pub const fn subjects(&self) -> &'static [&'static str] {
        match self.origin {
            SourceOrigin::JetStream { subjects, .. } | SourceOrigin::Core { subjects } => subjects,
        }
    }
}

/// The rows of one message, stored in order in one transaction, or not at all.
#[derive(Debug)]
pub struct Rows<P> {
    rows: Vec<RowData>,
    plugin: PhantomData<fn() -> P>,
}

impl<P: Plugin> Rows<P> {
    /// Adds a row. Its type must be one of the plugin's [`WRITES`](Plugin::WRITES), which is checked at compile time.
    #[inline]
    pub fn put<R: Row>(&mut self, row: R) {
        let write = const { declare::write_index(P::WRITES, R::WRITE.row) };
        if self.rows.capacity() == 0 {
            // Most messages have one row; a growing Vec would start with a capacity of four.
            self.rows.reserve_exact(1);
        }
        self.rows.push(RowData {
            write,
            values: row.into_values(),
        });
    }

    /// The number of rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<P: Plugin> Source<P> {
    /// Processes one message, in a component and in a native program.
    #[inline]
    pub(crate) fn handle(&self, message: &Message<'_>) -> Outcome {
        let mut rows = Rows {
            rows: Vec::new(),
            plugin: PhantomData,
        };
        match (self.handler)(message, &mut rows) {
            Ok(()) if rows.is_empty() => Outcome::Skip,
            Ok(()) => Outcome::Rows(rows.rows),
            Err(rejection) => Outcome::Reject(rejection),
        }
    }
}
