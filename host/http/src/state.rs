//! What the handlers share.

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

/// Answers the checks that the host as a whole has to pass: broker, database, disk. Called for each question after
/// readiness, so it only looks at what is known already and never waits.
pub type Health = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// The projections and what they say of themselves.
    pub projections: Registry,
    /// Answers questions to the database.
    pub reader: Reader,
    /// What the host as a whole has to pass.
    pub health: Health,
    /// The figures.
    pub metrics: Metrics,
    /// Who may ask for what.
    pub access: Access,
    /// The plugins, to be asked and changed.
    pub lifecycle: Lifecycle,
    /// What is kept for those who watch.
    pub live: Live,
    /// Proves to commands on this machine which host this is.
    pub identity: Identity,
    /// When the host started.
    pub started: Timestamp,
}
