//! What a plugin is: sources with their handlers, and the rows that the handlers answer with.

use std::marker::PhantomData;

use crate::declare;
use crate::native::{Outcome, Row as RowData};
use crate::{Message, Result, Value};

/// A plugin: what it reads and what it writes.
///
/// It is a pure function of its messages. It has no clock, no files and no random numbers, and an outcome must
/// depend on its message alone: how many messages one call brings differs between a run and its replay.
///
/// ```
/// use lantern_sdk::prelude::*;
/// use serde::Deserialize;
///
/// lantern_sdk::export!(Doors);
///
/// /// Doors that were opened.
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
/// /// When which door was opened.
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
/// // No row is an answer as well: the host counts the message as skipped.
/// fn closed(_: &Message<'_>, _: &mut Rows<Doors>) -> Result {
///     Ok(())
/// }
/// #
/// # let payload = br#"{"door":"north","at":"2026-05-28T10:41:00Z"}"#;
/// # let outcomes = lantern_sdk::native::project::<Doors>(0, &[Message { payload, ..Message::default() }]);
/// # assert!(matches!(&outcomes[0], lantern_sdk::native::Outcome::Rows(rows) if rows.len() == 1));
/// ```
pub trait Plugin: Package + Sized + 'static {
    /// What it reads, and which function handles it.
    const SOURCES: Sources<Self>;
    /// The ways in which it puts rows into its tables. The tables are those that these rows name.
    const WRITES: Writes;
}

/// A plugin's name, version and description. [`export!`](crate::export) takes them from its Cargo package.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not exported",
    note = "add `lantern_sdk::export!({Self});`: it takes the plugin's name and version from the Cargo package"
)]
pub trait Package {
    /// Unique in the host: small letters, digits and `-`.
    const NAME: &'static str;
    /// As semver.org says.
    const VERSION: &'static str;
    /// A sentence for people; may be empty.
    const DOC: &'static str;
}

/// A table, declared by a struct whose fields are its columns: `#[derive(Table)]`.
///
/// A field's type is the column's type, an `Option` makes it nullable, and the doc comment is its description.
///
/// ```
/// use lantern_sdk::{Json, Table, Timestamp};
///
/// /// Samples of a sensor.
/// #[derive(Table)]
/// #[table(
///     name = "samples",
///     primary_key = [sensor, at],        // none: each row stands for itself
///     unique = [serial],                 // rows with a null in it never collide
///     index = [at],
///     retention_days = 30,               // needs a time column
///     view("Outdoors", "kind=outdoor"),  // a view that the dashboard offers: what stands after `?` in its address
///     hint("chart", "line")              // anything else that a face of the host knows
/// )]
/// struct Sample {
///     /// Which sensor.
///     #[column(entity)]                  // whom or what it happened to
///     sensor: String,
///     #[column(time)]                    // when it happened
///     at: Timestamp,
///     #[column(facet)]                   // few values, worth filtering by
///     kind: String,
///     #[column(measure = "Cel")]         // a quantity, with its unit in UCUM
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
/// Rows that last from one time to another say so with `span_end = column`, and which column names the lane of a timeline
/// with `lane = column`; without it that is the first facet.
///
/// A primary key that could be null does not compile, nor does a time that is no [`Timestamp`](crate::Timestamp):
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
    message = "`{Self}` is no table",
    note = "a table has `#[derive(Table)]`; rows for the table of another struct name it: `#[row(table = …)]`"
)]
pub trait Table {
    /// The declaration.
    const TABLE: declare::Table;
}

/// Rows of one write, made from a struct: `#[derive(Row)]`.
///
/// The struct's fields are the columns that the rows bring. Without `table = …` the struct is its own table.
/// Columns of the table that a row leaves out are null in a new row. `on_conflict` is `fail` (the default),
/// `ignore`, or `update`:
///
/// ```
/// use lantern_sdk::{Row, Table, Timestamp};
///
/// /// The last word of each sensor.
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
///     key = [sensor],          // how the stored row is found: the primary key or a unique index
///     newer = at,              // only then; or `while_null = column`, or always
///     replace = [at],          // also with null
///     max = [highest],         // or `min`
///     add = [samples],         // or `fill`: only where null is stored; what is not named is kept
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
/// What does not fit together does not compile: a type that is not the column's, a column that is left out and
/// cannot be null, a key that is none of the table's.
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
/// #[row(table = Sensor, on_conflict = update(key = [place], replace = [sensor]))] // no key of the table
/// struct Sample { sensor: String, place: String }
/// ```
pub trait Row {
    /// The declaration.
    const WRITE: declare::Write;

    /// One value for each column of [`Self::WRITE`], in that order.
    fn into_values(self) -> Vec<Value>;
}

/// What a plugin reads, as [`Plugin::SOURCES`] has it.
pub type Sources<P> = &'static [Source<P>];
/// The ways in which a plugin puts rows into its tables, as [`Plugin::WRITES`] has them.
pub type Writes = &'static [declare::Write];

/// One thing that a plugin reads, and the function that handles its messages.
#[derive(Debug)]
pub struct Source<P> {
    pub(crate) name: &'static str,
    pub(crate) origin: Origin,
    pub(crate) wants_headers: bool,
    handler: Handler<P>,
}

/// Handles one message: puts its rows, or none to skip it, or says why it cannot. On an error no row is stored.
pub type Handler<P> = fn(&Message<'_>, &mut Rows<P>) -> Result;

/// Where a source's messages come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    JetStream {
        stream: &'static str,
        subjects: &'static [&'static str],
    },
    Core {
        subjects: &'static [&'static str],
    },
}

impl<P> Source<P> {
    /// Messages of a JetStream stream on these subjects (`*` and `>` allowed; none means all). The host keeps the
    /// position under the source's `name` and handles each message exactly once.
    pub const fn stream(
        name: &'static str,
        stream: &'static str,
        subjects: &'static [&'static str],
        handler: Handler<P>,
    ) -> Self {
        Self {
            name,
            origin: Origin::JetStream { stream, subjects },
            wants_headers: false,
            handler,
        }
    }

    /// Core NATS subjects. There is no position and no replay: what arrives while the host is away is gone.
    pub const fn core(name: &'static str, subjects: &'static [&'static str], handler: Handler<P>) -> Self {
        Self {
            name,
            origin: Origin::Core { subjects },
            wants_headers: false,
            handler,
        }
    }

    /// The same, with the messages' headers.
    pub const fn with_headers(mut self) -> Self {
        self.wants_headers = true;
        self
    }

    /// The name under which the host keeps its position.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The subjects wanted.
    pub const fn subjects(&self) -> &'static [&'static str] {
        match self.origin {
            Origin::JetStream { subjects, .. } | Origin::Core { subjects } => subjects,
        }
    }
}

/// The rows of one message: all of them are stored, in this order and in one transaction, or none.
#[derive(Debug)]
pub struct Rows<P> {
    rows: Vec<RowData>,
    plugin: PhantomData<fn() -> P>,
}

impl<P: Plugin> Rows<P> {
    /// Adds a row. That its type is among the plugin's [`WRITES`](Plugin::WRITES) is checked while compiling.
    #[inline]
    pub fn put<R: Row>(&mut self, row: R) {
        let write = const { declare::write_index(P::WRITES, R::WRITE.row) };
        if self.rows.capacity() == 0 {
            // Nearly always there is one row; a Vec that grows by itself begins with room for four.
            self.rows.reserve_exact(1);
        }
        self.rows.push(RowData {
            write,
            values: row.into_values(),
        });
    }

    /// How many rows this message has so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether this message has no rows so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<P: Plugin> Source<P> {
    /// What becomes of one message. The same code in a component and in a native program.
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
