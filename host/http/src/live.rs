//! What the host keeps in memory for those who watch it: the rows of tables as they come, and the last hour of each
//! projection. It reads, and is told of commits; nothing waits for it.

mod history;
mod ring;
mod tails;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(super) use history::{History, INTERVAL, Sample};
pub(super) use ring::Wanted;
pub(super) use tails::{FollowError, Follower, Tails};

use lantern_model::status::Registry;
use lantern_store::Reader;

/// Handles to both. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    /// Tables that are followed.
    pub(super) tails: Tails,
    /// The last hour.
    pub(super) history: History,
}

impl Live {
    /// Begins to watch, until `stop`. `commits` changes with each commit of the store.
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
