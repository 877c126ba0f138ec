//! Events from before the demo: boot, logins, packages. Each source is read once, at the start.

mod logins;
mod packages;

use std::fmt;

use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::message::Observed;

/// Limit of events per source, newest first: a log of years would keep the demo busy for minutes.
const EVENTS_MAX: usize = 5_000;

/// Why a source is unavailable on this machine or to this user.
#[derive(Debug, PartialEq, Eq)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

type Source = fn() -> Result<Vec<Observed>, Unavailable>;

/// Reads all sources in order, each with its events or the reason why it is unavailable.
pub fn read() -> impl Iterator<Item = Result<Vec<Observed>, Unavailable>> {
    let sources: [Source; 3] = [boot, logins::read, packages::read];
    sources.into_iter().map(|source| source().map(newest))
}

fn boot() -> Result<Vec<Observed>, Unavailable> {
    let seconds =
        sysinfo::System::boot_time().map_err(|error| Unavailable(format!("time of the boot: {error:?}")))?;
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let at = at.ok_or_else(|| Unavailable(format!("time of the boot: {seconds} is not a valid time")))?;
    let kernel = sysinfo::System::kernel_version().ok();
    let system = sysinfo::System::long_os_version().ok();
    Ok(vec![Observed {
        at,
        kind: "boot",
        source: "system:boot",
        record_id: seconds.to_string(),
        payload: serde_json::json!({ "kernel": kernel, "system": system }),
    }])
}

fn newest(mut events: Vec<Observed>) -> Vec<Observed> {
    events.sort_by_key(|event| event.at);
    let surplus = events.len().saturating_sub(EVENTS_MAX);
    events.split_off(surplus)
}

/// A stable id for an event without one, derived from its text.
fn id_of(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_a_stable_id() {
        let (first, second) = (boot().unwrap(), boot().unwrap());
        assert_eq!(first.len(), 1);
        assert_eq!(first, second);
        assert_eq!(first[0].at.timestamp().to_string(), first[0].record_id);
    }

    #[test]
    fn ids_depend_on_the_text_alone() {
        assert_eq!(id_of("abc"), "ba7816bf8f01cfea414140de");
        assert_ne!(id_of("abd"), id_of("abc"));
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let event = |seconds: i64| Observed {
            at: DateTime::from_timestamp(seconds, 0).unwrap(),
            kind: "boot",
            source: "test",
            record_id: seconds.to_string(),
            payload: serde_json::Value::Null,
        };
        let many = newest(
            (0..i64::try_from(EVENTS_MAX).unwrap() + 7)
                .rev()
                .map(event)
                .collect(),
        );
        assert_eq!(many.len(), EVENTS_MAX);
        assert_eq!(many[0], event(7));
    }
}
