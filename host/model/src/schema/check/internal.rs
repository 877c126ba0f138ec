//! Core subjects on which traffic of the broker itself arrives.

use crate::schema::{Manifest, Origin, SourceName};

/// First tokens of the subjects on which the broker and its clients talk to each other: requests to JetStream, answers to
/// requests, events of the system, and the servers' own consensus.
const INTERNAL: [&str; 4] = ["$JS", "_INBOX", "$SYS", "$NRG"];

impl Manifest {
    /// The first core subject on which traffic of the broker itself arrives, such as `>` or `_INBOX.>`, with its source.
    /// Such a plugin sees what other programs ask and are answered, so an operator has to allow it.
    pub fn internal_subject(&self) -> Option<(&SourceName, &str)> {
        self.sources.iter().find_map(|source| match &source.origin {
            Origin::JetStream { .. } => None,
            Origin::Core { subjects } => subjects
                .iter()
                .find(|subject| is_internal(subject))
                .map(|subject| (&source.name, subject.as_str())),
        })
    }
}

/// Whether a subject matches any that begins with an internal token.
fn is_internal(subject: &str) -> bool {
    match subject.split_once('.') {
        Some((first, _)) => first == "*" || INTERNAL.contains(&first),
        // A single token has no more behind it, but for this one.
        None => subject == ">",
    }
}
