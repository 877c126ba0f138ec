//! The signature of a component as text.

use lantern_api::{Signature, SignatureState};

/// Short text for a column; `None` if signatures are not checked.
pub fn short(signature: &Signature) -> Option<String> {
    match (signature.state, &signature.key) {
        (SignatureState::NotChecked, _) => None,
        (SignatureState::Good, Some(key)) => Some(key.clone()),
        (state, _) => Some(state.as_str().to_owned()),
    }
}

/// Text for a line; `None` if signatures are not checked.
pub fn describe(signature: &Signature) -> Option<String> {
    let Signature { state, key, .. } = signature;
    match (state, key, &signature.comment, &signature.reason) {
        (SignatureState::NotChecked, ..) => None,
        (SignatureState::Good, Some(key), Some(comment), _) => Some(format!("valid, key {key}: {comment}")),
        (SignatureState::Good, Some(key), ..) => Some(format!("valid, key {key}")),
        (state, _, _, Some(reason)) => Some(format!("{}: {reason}", state.as_str())),
        (state, ..) => Some(state.as_str().to_owned()),
    }
}
