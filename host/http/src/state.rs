//! State that all handlers share.

use std::sync::Arc;

use super::access::Access;
use super::live::Live;
use lantern_api::Check;
use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::status::Registry;
use lantern_store::Reader;
use lantern_telemetry::Metrics;
use lantern_trust::identity::Identity;

/// Returns the checks of the host as a whole: broker, database, disk. Every readiness request calls it, so it only reads
/// known state and never blocks.
pub type Health = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// State that all handlers share.
#[derive(Clone)]
pub struct State {
    /// Status of the projections.
    pub projections: Registry,
    /// Reader of the database.
    pub reader: Reader,
    /// Checks of the host as a whole.
    pub health: Health,
    /// Metrics.
    pub metrics: Metrics,
    /// Tokens and access rules.
    pub access: Access,
    /// Running plugins.
    pub lifecycle: Lifecycle,
    /// Table tails and the history of projections.
    pub live: Live,
    /// Identity of the host, which commands on this machine verify.
    pub identity: Identity,
    /// Start time of the host.
    pub started: Timestamp,
}
