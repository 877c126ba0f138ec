//! What the tests share: a loader, messages, and short words for outcomes.

use std::sync::Arc;
use std::time::Duration;

use lantern_model::batch::{Delivery, Outcome, RejectionClass};
use lantern_plugin::{Compiler, EngineConfig, Limits, Loader, Plugin};

use crate::guest::{self, Variant};

/// Enough for everything; tests of the budget give their own.
pub const LONG: Duration = Duration::from_secs(60);

/// A loader that compiles in this process and keeps nothing.
pub fn loader(limits: Limits) -> Loader {
    let config = EngineConfig {
        limits,
        ..EngineConfig::new(Compiler::InProcess)
    };
    Loader::new(config, [1; 32]).expect("the engine runs here")
}

/// Limits with a shorter time for a message, so that tests of loops are quick.
pub fn quick() -> Limits {
    Limits {
        message_time: Duration::from_millis(150),
        ..Limits::default()
    }
}

/// The guest of `guest.wat`, loaded.
pub fn plugin(limits: Limits) -> Arc<Plugin> {
    loader(limits)
        .load(&guest::component(&Variant::default()))
        .expect("the guest loads")
}

/// One message for each payload, with sequences from 1 on.
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

/// An outcome in a word: `rows`, `skip`, or the class of a rejection.
pub fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Rows(_) => "rows",
        Outcome::Skip => "skip",
        Outcome::Reject(rejection) => rejection.class.as_str(),
    }
}

/// The words of all outcomes.
pub fn words(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().map(word).collect()
}

/// The reason of a rejection of this class.
#[track_caller]
pub fn reason(outcome: &Outcome, class: RejectionClass) -> &str {
    match outcome {
        Outcome::Reject(rejection) if rejection.class == class => &rejection.reason,
        other => panic!("{other:?} where {class:?} was expected"),
    }
}
