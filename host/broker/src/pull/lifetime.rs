//! The lifetimes of pull requests. The broker sends heartbeats at whole intervals after a request arrives, and an idle source
//! renews its request when it ends. Requests of all sources end at a few shared moments, so that the heartbeats of many idle
//! sources arrive together and wake the host rarely.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::HEARTBEAT;

/// Interval of the moments. Several within the interval of heartbeats, so that the heartbeats of a thousand sources do not delay
/// messages.
const MOMENT_INTERVAL: Duration = Duration::from_millis(125);

/// The lifetime of a request that is sent now: at most `limit`.
pub(super) fn of_request_now(limit: Duration) -> Duration {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    of_request(limit, ORIGIN.elapsed())
}

/// The lifetime of a request that is sent at `now`. A short limit stays as it is.
fn of_request(limit: Duration, now: Duration) -> Duration {
    if limit < HEARTBEAT * 2 {
        return limit;
    }
    let past_moment = (now + limit).as_micros() % MOMENT_INTERVAL.as_micros();
    limit - Duration::from_micros(past_moment as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_end_at_shared_moments() {
        let ms = Duration::from_millis;
        for (limit, now, expected) in [
            (10_000, 0, 10_000),
            (10_000, 1, 9_999),
            (10_000, 124, 9_876),
            (10_000, 125, 10_000),
            (10_000, 7_300, 9_950),
            // The broker may allow only short requests.
            (1_999, 1, 1_999),
        ] {
            assert_eq!(of_request(ms(limit), ms(now)), ms(expected), "{limit} at {now}");
        }
    }
}
