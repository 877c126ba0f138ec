//! The rate limit of a rebuild.

use tokio::time::{Duration, Instant};

use super::Purpose;

/// Limits the rate of a rebuild.
pub(super) struct RateLimit {
    rate: Option<u64>,
    began: Instant,
    taken: u64,
}

impl RateLimit {
    pub(super) fn new(purpose: Purpose) -> Self {
        let rate = match purpose {
            Purpose::Live => None,
            Purpose::Rebuild(rebuild) => rebuild.rate,
        };
        Self {
            rate,
            began: Instant::now(),
            taken: 0,
        }
    }

    pub(super) fn take(&mut self, messages: usize) {
        self.taken += messages as u64;
    }

    /// Waits until the rate allows more messages; returns at once without a rate.
    pub(super) async fn wait_until_allowed(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.taken as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(self.began + due).await;
        }
    }
}
