//! The request and response types of Lantern's HTTP API, each defined once: the server, the command line and the tests
//! use the same types, and the OpenAPI document is generated from them. Plain data only: conversions from the types of
//! the host are in `lantern-http`, requests are validated there.
//!
//! Types that the database also stores (descriptions, settings, status) are in `lantern-model`.

mod dead_letters;
mod forget;
mod host;
mod plugins;
mod problem;
mod projections;
mod rebuilds;
mod records;
mod rows;
mod sql;
mod tables;
mod tokens;
mod trials;

pub use dead_letters::{
    DEAD_LETTER_STATES, DeadLetter, DeadLetterGroup, DeadLetterReason, DeadLetterReasons, Discarded,
    WhichDeadLetters,
};
pub use forget::Forget;
pub use host::{Check, Info, Proof, Readiness};
pub use plugins::{
    Activate, Differences, Pause, SettingsChanges, SourceDecided, SourceDecision, SourceHistory,
};
pub use problem::Problem;
pub use projections::{History, ProjectionHistory, Sample};
pub use rebuilds::NewRebuild;
pub use records::{Gap, LedgerRange, Page};
pub use rows::{
    GapEvent, Message, MessageOrigin, Neighbours, Row, RowDetail, RowPage, RowVersion, RowsEvent,
};
pub use sql::SqlAnswer;
pub use tables::{Bucket, Count, Facet, FacetValue, Facets, Histogram, Measure, Series, SeriesAnswer, Table};
pub use tokens::{CreatedToken, NewToken, Role, Token, WhoAmI};
pub use trials::{NewCanary, Reproject};
