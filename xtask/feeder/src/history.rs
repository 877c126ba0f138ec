//! What has happened before the demo began: the boot, logins, packages. Each is read once, at the start.

mod logins;
mod packages;

use std::fmt;

use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::message::Observed;

/// The newest of each source that are taken: a log of years would keep the demo busy for minutes.
const EVENTS_MAX: usize = 5_000;

/// A source that this machine does not have, or does not let this user read.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap(String);

impl fmt::Display for Gap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

type Source = fn() -> Result<Vec<Observed>, Gap>;

/// All sources, one after the other, each with its events or with why there are none.
pub fn read() -> impl Iterator<Item = Result<Vec<Observed>, Gap>> {
    let sources: [Source; 3] = [boot, logins::read, packages::read];
    sources.into_iter().map(|source| source().map(newest))
}

fn boot() -> Result<Vec<Observed>, Gap> {
    let seconds =
        sysinfo::System::boot_time().map_err(|error| Gap(format!("time of the boot: {error:?}")))?;
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let at = at.ok_or_else(|| Gap(format!("time of the boot: {seconds} is no time")))?;
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

/// An id for something that has none of its own: the same text has the same id in every run.
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
    fn the_boot_is_known_and_has_one_id() {
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
