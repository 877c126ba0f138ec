//! What a host says of a component's signature, in words.

use serde::{Deserialize, Serialize};

/// As the API has it.
#[derive(Deserialize, Serialize)]
pub struct Signature {
    pub state: String,
    pub key: Option<String>,
    pub comment: Option<String>,
    pub reason: Option<String>,
}

/// Nobody has looked.
impl Default for Signature {
    fn default() -> Self {
        Self {
            state: "not-checked".to_owned(),
            key: None,
            comment: None,
            reason: None,
        }
    }
}

impl Signature {
    /// In a word or two, for a column; none where nobody looks at signatures.
    pub fn in_short(&self) -> Option<String> {
        match (self.state.as_str(), &self.key) {
            ("not-checked", _) => None,
            ("good", Some(key)) => Some(key.clone()),
            (state, _) => Some(state.to_owned()),
        }
    }

    /// For a line; none where nobody looks at signatures.
    pub fn in_words(&self) -> Option<String> {
        let Self { state, key, .. } = self;
        match (state.as_str(), key, &self.comment, &self.reason) {
            ("not-checked", ..) => None,
            ("good", Some(key), Some(comment), _) => Some(format!("good, of key {key}: {comment}")),
            ("good", Some(key), ..) => Some(format!("good, of key {key}")),
            (state, _, _, Some(reason)) => Some(format!("{state}: {reason}")),
            (state, ..) => Some(state.to_owned()),
        }
    }
}
