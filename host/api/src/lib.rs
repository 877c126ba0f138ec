//! The request and response types of Lantern's HTTP API, each defined once: the server, the command line and the tests
//! use the same types, and the OpenAPI document is generated from them. Plain data only: conversions from the types of
//! the host are in `lantern-http`, requests are validated there.
//!
//! Types that the database also stores (descriptions, settings, status) are in `lantern-model`.

mod audit;
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
mod trace;
mod trials;
mod versions;

pub use audit::{AuditEntry, AuditOutcome};
pub use dead_letters::{
    DEAD_LETTER_STATES, DeadLetter, DeadLetterGroup, DeadLetterReason, DeadLetterReasons,
    DeadLetterSelection, Discarded, RetryTotals,
};
pub use forget::{Forget, ForgetReport, ForgottenStream, ForgottenTable};
pub use host::{Check, Info, Proof, Readiness};
pub use plugins::{
    Activate, ChangedVersion, ConsumerLeft, ConsumerTakenOver, Differences, Pause, Removed, SettingsChanges,
    SourceDecided, SourceDecision, SourceHistory, TakeOverOutcome, TakenOver,
};
pub use problem::Problem;
pub use projections::{History, ProjectionHistory, Sample};
pub use rebuilds::{NewRebuild, Rebuild, RebuildOutcome, RebuildProgress, TableOutcome};
pub use records::{Gap, LedgerRange, Page};
pub use rows::{
    Message, MessageOrigin, Neighbours, OmittedEvent, Row, RowDetail, RowPage, RowVersion, RowsEvent,
};
pub use sql::SqlAnswer;
pub use tables::{
    Bucket, Count, Facet, FacetValue, Facets, Histogram, Measure, Series, SeriesAnswer, SetTableSearch,
    Table, TableSearch,
};
pub use tokens::{CreatedToken, NewToken, Role, Token, WhoAmI};
pub use trace::{Trace, TracedMessage, VersionWork, WorkRange};
pub use trials::{
    CanaryReport, CanarySource, CanaryVersion, NewCanary, RejectExample, Rejects, Reproject, Reprojected,
    RowExample, TableComparison,
};
pub use versions::{
    Description, LoadFailure, Plugin, PluginDetail, PluginUse, PluginVersion, PluginVersionDetail, Signature,
    SignatureState, VersionState,
};
