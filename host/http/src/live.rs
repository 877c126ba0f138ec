//! Live data in memory: new rows of followed tables, and the last hour of each projection. It reacts to commits; ingestion
//! never waits for it.

mod history;
mod missed;
mod ring;
mod tails;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use history::{History, INTERVAL, Sample};
pub(super) use ring::ViewOptions;
pub(super) use tails::{FollowError, Follower, Tails};

use lantern_model::status::Registry;
use lantern_store::Reader;

/// Handles to table tails and history. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    /// Table tails.
    pub(super) tails: Tails,
    /// History of projections.
    pub(super) history: History,
}

impl Live {
    /// Starts both until `stop`. `commits` changes with each commit of the store.
    pub fn start(
        reader: Reader,
        commits: watch::Receiver<u64>,
        projections: Registry,
        stop: CancellationToken,
    ) -> Self {
        Self {
            history: History::start(projections, stop.clone()),
            tails: Tails::new(reader, commits, stop),
        }
    }
}
