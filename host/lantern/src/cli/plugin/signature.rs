//! The signature of a component, as a host reports it.

use serde::{Deserialize, Serialize};

/// A signature, as returned by the API.
#[derive(Deserialize, Serialize)]
pub struct Signature {
    pub state: String,
    pub key: Option<String>,
    pub comment: Option<String>,
    pub reason: Option<String>,
}

/// Not checked.
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
    /// Short text for a column; `None` if signatures are not checked.
    pub fn short(&self) -> Option<String> {
        match (self.state.as_str(), &self.key) {
            ("not-checked", _) => None,
            ("good", Some(key)) => Some(key.clone()),
            (state, _) => Some(state.to_owned()),
        }
    }

    /// Text for a line; `None` if signatures are not checked.
    pub fn describe(&self) -> Option<String> {
        let Self { state, key, .. } = self;
        match (state.as_str(), key, &self.comment, &self.reason) {
            ("not-checked", ..) => None,
            ("good", Some(key), Some(comment), _) => Some(format!("valid, key {key}: {comment}")),
            ("good", Some(key), ..) => Some(format!("valid, key {key}")),
            (state, _, _, Some(reason)) => Some(format!("{state}: {reason}")),
            (state, ..) => Some(state.to_owned()),
        }
    }
}
