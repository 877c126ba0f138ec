//! Deletes rows that are older than the retention of their tables, and tables that a rebuild has replaced.
//!
//! Retention has its own clock, which never runs faster than [`SPEED`] times real time. If the host's clock jumps ahead
//! (a machine without a battery, a restored snapshot, a wrong time server), it therefore removes few rows before the
//! clock is corrected. After a long stop the clock of retention catches up within hours.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use lantern_lifecycle::Lifecycle;
use lantern_model::batch::Timestamp;
use lantern_model::schema::Table;
use lantern_store::Store;

/// Interval of the search for expired rows.
const INTERVAL: Duration = Duration::from_secs(60);

/// Maximum speed of the clock of retention, as a multiple of real time: a day of retention for each hour.
const SPEED: u32 = 24;

/// An earlier time (before 2026) means that the host's clock is not set.
const CLOCK_IS_SET_FROM: Timestamp = Timestamp(1_767_225_600_000_000);

/// Microseconds by which the host's clock may be ahead without a warning: a day.
const AHEAD_US: i64 = 24 * 3_600_000_000;

/// Microseconds by which the stored time may differ: an hour.
const STORED_US: i64 = 3_600_000_000;

/// The clock of retention.
struct RetentionClock {
    at: Timestamp,
    /// The time in the database.
    stored: Timestamp,
    advanced: Instant,
    is_behind: bool,
}

impl RetentionClock {
    fn new(at: Timestamp, started: Instant) -> Self {
        Self {
            at,
            stored: at,
            advanced: started,
            is_behind: false,
        }
    }

    /// Advances to the host's clock, limited by the real time since the last call. Returns the time, or `None` if the
    /// host's clock is not set.
    fn advance(&mut self, now: Timestamp, instant: Instant) -> Option<Timestamp> {
        let elapsed = instant.saturating_duration_since(self.advanced);
        self.advanced = instant;
        if now < CLOCK_IS_SET_FROM {
            return None;
        }
        let most = i64::try_from((elapsed * SPEED).as_micros()).unwrap_or(i64::MAX);
        self.at = now.min(Timestamp(self.at.0.saturating_add(most)));
        Some(self.at)
    }

    /// How far the host's clock is ahead, the first time that it is ahead by more than a day.
    fn newly_behind(&mut self, now: Timestamp) -> Option<Duration> {
        let ahead = now.0.saturating_sub(self.at.0);
        let was_behind = std::mem::replace(&mut self.is_behind, ahead > AHEAD_US);
        (self.is_behind && !was_behind).then(|| Duration::from_micros(ahead.unsigned_abs()))
    }

    /// The time to store, if it differs enough from the stored one.
    fn to_store(&self) -> Option<Timestamp> {
        ((self.at.0 - self.stored.0).abs() >= STORED_US).then_some(self.at)
    }
}

/// Deletes expired rows at each interval until `stop`.
pub(super) async fn run(store: Arc<Store>, lifecycle: Lifecycle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut clock = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !lifecycle.does_jobs() {
            continue;
        }
        lifecycle.remove_old_tables();
        let Some(now) = advance(&store, &mut clock).await else {
            continue;
        };
        for table in &lifecycle.expiring_tables() {
            expire_rows(&store, table, now, &stop).await;
        }
    }
}

/// Advances the clock of retention, which it reads from the database first. Returns none if rows must not expire now.
async fn advance(store: &Store, clock: &mut Option<RetentionClock>) -> Option<Timestamp> {
    let now = Timestamp::now();
    let clock = match clock {
        Some(clock) => clock,
        None => match store.maintenance().retention_time(now).await {
            Ok(at) => clock.insert(RetentionClock::new(at, Instant::now())),
            Err(error) => {
                tracing::warn!(%error, "failed to read the time of retention; will retry");
                return None;
            }
        },
    };
    let at = clock.advance(now, Instant::now())?;
    if let Some(ahead) = clock.newly_behind(now) {
        tracing::warn!(
            retention_time = at.to_rfc3339(),
            ahead_hours = ahead.as_secs() / 3_600,
            "the host was stopped for long, or its clock jumped ahead; retention catches up by a day each hour. Correct \
             the clock if it is wrong"
        );
    }
    if let Some(at) = clock.to_store() {
        match store.maintenance().set_retention_time(at).await {
            Ok(()) => clock.stored = at,
            Err(error) => tracing::warn!(%error, "failed to store the time of retention; will retry"),
        }
    }
    Some(at)
}

/// Deletes the expired rows of a table in small steps, so that other writes do not wait.
async fn expire_rows(store: &Store, table: &Table, now: Timestamp, stop: &CancellationToken) {
    let mut removed = 0;
    while !stop.is_cancelled() {
        match store.maintenance().expire(table.clone(), now).await {
            Ok(0) => break,
            Ok(rows) => removed += rows,
            Err(error) => {
                tracing::warn!(table = %table.name, %error, "failed to remove expired rows; will retry");
                break;
            }
        }
    }
    if removed > 0 {
        let retention_days = table.retention_days;
        tracing::info!(table = %table.name, rows = removed, retention_days, "removed expired rows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = AHEAD_US;
    const START: Timestamp = Timestamp(CLOCK_IS_SET_FROM.0 + 100 * DAY);

    fn after(days: i64) -> Timestamp {
        Timestamp(START.0 + days * DAY)
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3_600)
    }

    #[test]
    fn a_clock_that_jumps_ahead_removes_at_most_a_day_of_rows_each_hour() {
        let begin = Instant::now();
        let mut clock = RetentionClock::new(START, begin);
        let minute = begin + Duration::from_secs(60);
        let wrong = clock.advance(after(60), minute).unwrap();
        assert_eq!(wrong.0 - START.0, 24 * 60_000_000);
        assert_eq!(clock.newly_behind(after(60)).unwrap().as_secs() / 86_400, 59);
        assert_eq!(clock.newly_behind(after(60)), None, "one warning");
        // The clock is corrected after an hour.
        assert_eq!(clock.advance(after(60), begin + hours(1)), Some(after(1)));
        let right = Timestamp(START.0 + DAY / 24);
        assert_eq!(clock.advance(right, begin + hours(1)), Some(right));
        assert_eq!(clock.newly_behind(right), None);
        let later = Timestamp(right.0 + 60_000_000);
        assert_eq!(
            clock.advance(later, begin + hours(1) + Duration::from_secs(60)),
            Some(later)
        );
    }

    #[test]
    fn retention_catches_up_after_a_long_stop() {
        let begin = Instant::now();
        let mut clock = RetentionClock::new(START, begin);
        assert_eq!(clock.advance(after(7), begin), Some(START));
        assert_eq!(clock.advance(after(7), begin + hours(3)), Some(after(3)));
        assert_eq!(clock.advance(after(7), begin + hours(24)), Some(after(7)));
        assert_eq!(clock.to_store(), Some(after(7)));
    }

    #[test]
    fn nothing_expires_while_the_clock_is_not_set() {
        let begin = Instant::now();
        let mut clock = RetentionClock::new(START, begin);
        assert_eq!(clock.advance(Timestamp(5), begin + hours(1)), None);
        assert_eq!(clock.to_store(), None);
        // The time of retention is unchanged when the clock is set.
        assert_eq!(clock.advance(START, begin + hours(1)), Some(START));
    }

    #[tokio::test]
    async fn the_clock_continues_at_the_stored_time_and_not_at_that_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let config = lantern_store::StoreConfig::new(dir.path());
        let store = Store::open(config).await.unwrap();
        let stored = Timestamp(Timestamp::now().0 - 60 * DAY);
        store.maintenance().set_retention_time(stored).await.unwrap();
        let mut clock = None;
        let at = advance(&store, &mut clock).await.unwrap();
        assert!(stored <= at && at.0 < stored.0 + DAY, "{at:?}");
        assert!(clock.unwrap().is_behind, "it was reported");
        store.close().await;
    }
}
