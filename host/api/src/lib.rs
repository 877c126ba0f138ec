//! The request and response types of Lantern's HTTP API, each defined once: the server, the command line and the tests
//! use the same types, and the OpenAPI document is generated from them. Plain data only: conversions from the types of
//! the host are in `lantern-http`, requests are validated there.
//!
//! Types that the host also uses (descriptions, settings, status, results of operations) are in `lantern-model`; this
//! crate names the results again, so that clients need one crate.

mod dead_letters;
mod forget;
mod host;
mod nodes;
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
mod versions;

pub use lantern_model::actor::Role;
pub use lantern_model::results::audit::{AuditOutcome, AuditRecord};
pub use lantern_model::results::canary::{
    CanaryReport, CanarySource, CanaryVersion, RejectExample, Rejects, RowExample, TableComparison,
};
pub use lantern_model::results::forget::{ForgetReport, ForgottenStream, ForgottenTable};
pub use lantern_model::results::plugins::{
    ConsumerLeft, ConsumerTakenOver, PluginSummary, PluginUse, PluginVersion, Signature, SignatureState,
    TakeOverOutcome, VersionDescription, VersionState,
};
pub use lantern_model::results::rebuild::{
    Rebuild, RebuildOutcome, RebuildProgress, RebuildState, TableChange, TableOutcome,
};
pub use lantern_model::results::records::{
    DEAD_LETTER_STATES, DeadLetter, DeadLetterGroup, DeadLetterReason, Gap, LedgerRange,
};
pub use lantern_model::results::row::RowView;
pub use lantern_model::results::work::{Reprojected, Trace, TracedMessage, VersionWork, WorkRange};

pub use dead_letters::{DeadLetterReasons, DeadLetterSelection, Discarded, RetryTotals};
pub use forget::Forget;
pub use host::{Check, Info, Proof, Readiness};
pub use nodes::Node;
pub use plugins::{
    Activate, ChangedVersion, Differences, Pause, Removed, SettingsChanges, SourceDecided, SourceDecision,
    SourceHistory, TakenOver,
};
pub use problem::Problem;
pub use projections::{History, ProjectionHistory, Sample};
pub use rebuilds::NewRebuild;
pub use records::Page;
pub use rows::{
    Message, MessageOrigin, Neighbours, OmittedEvent, Row, RowDetail, RowPage, RowVersion, RowsEvent,
};
pub use sql::SqlAnswer;
pub use tables::{
    Bucket, Count, Facet, FacetValue, Facets, Histogram, Measure, Series, SeriesAnswer, SetTableSearch,
    Table, TableSearch,
};
pub use tokens::{CreatedToken, NewToken, Token, WhoAmI};
pub use trials::{NewCanary, Reproject};
pub use versions::{LoadFailure, PluginDetail, PluginVersionDetail};
