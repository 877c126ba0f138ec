//! Shared helpers: a loader, messages, and short names for outcomes.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Delivery, Outcome, RejectionClass};
use lantern_plugin::{Compiler, EngineConfig, Limits, Loader, Plugin};

use crate::guest::{self, Variant};

/// Enough for everything; tests of the time budget pass their own.
pub const LONG: Duration = Duration::from_secs(60);

/// Returns a loader that compiles in this process and caches nothing.
pub fn loader(limits: Limits) -> Loader {
    let config = EngineConfig {
        limits,
        ..EngineConfig::new(Compiler::InProcess)
    };
    Loader::new(config, [1; 32]).expect("the engine runs here")
}

/// Returns limits with a shorter time per message, so that tests of loops are fast.
pub fn quick() -> Limits {
    Limits {
        message_time: Duration::from_millis(150),
        ..Limits::default()
    }
}

/// Loads the guest of `guest.wat`.
pub fn plugin(limits: Limits) -> Arc<Plugin> {
    loader(limits)
        .load(&guest::component(&Variant::default()))
        .expect("the guest loads")
}

/// Returns one message per payload, with sequences from 1.
pub fn messages<P: AsRef<str>>(payloads: &[P]) -> Vec<Delivery> {
    (1..)
        .zip(payloads)
        .map(|(sequence, payload)| Delivery {
            subject: format!("evil.{sequence}"),
            sequence,
            published_ns: 1_000_000_000,
            headers: vec![("a".into(), "header".into())],
            payload: payload.as_ref().as_bytes().to_vec().into(),
        })
        .collect()
}

/// Returns a short name of an outcome: `rows`, `skip`, or the class of a rejection.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Rows(_) => "rows",
        Outcome::Skip => "skip",
        Outcome::Reject(rejection) => rejection.class.as_str(),
    }
}

/// Returns the short names of all outcomes.
pub fn outcome_kinds(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().map(word).collect()
}

/// Returns the reason of a rejection of this class.
#[track_caller]
pub fn reason(outcome: &Outcome, class: RejectionClass) -> &str {
    match outcome {
        Outcome::Reject(rejection) if rejection.class == class => &rejection.reason,
        other => panic!("{other:?} where {class:?} was expected"),
    }
}
