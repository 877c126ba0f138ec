//! Core NATS subjects that carry the broker's internal traffic.

use crate::schema::{Manifest, SourceName};

/// First tokens of internal subjects of the broker and its clients: requests to JetStream, answers to requests, system
/// events, and the servers' consensus.
const INTERNAL: [&str; 4] = ["$JS", "_INBOX", "$SYS", "$NRG"];

impl Manifest {
    /// The first core NATS subject that carries internal traffic of the broker, such as `>` or `_INBOX.>`, with its
    /// source. Such a plugin sees requests and answers of other programs, so an operator must allow it.
    pub fn internal_subject(&self) -> Option<(&SourceName, &str)> {
        let live = self
            .sources
            .iter()
            .filter(|source| !source.origin.is_replayable());
        live.flat_map(|source| {
            source
                .origin
                .subjects()
                .iter()
                .map(move |subject| (&source.name, subject.as_str()))
        })
        .find(|(_, subject)| is_internal(subject))
    }
}

/// Whether a subject matches any subject that begins with an internal token.
fn is_internal(subject: &str) -> bool {
    match subject.split_once('.') {
        Some((first, _)) => first == "*" || INTERNAL.contains(&first),
        // A single token matches only one level, except `>`.
        None => subject == ">",
    }
}
