//! How a host passes a request on to another host of the same database. The sender does not send the client's token: it
//! states who the client is, and authenticates the statement and the request with a key that all hosts of the database know.
//!
//! A statement is valid for a short time and for one method, path and body. A host accepts each statement once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The scheme of the header `Authorization`.
pub const SCHEME: &str = "Lantern-Forward";

/// How long a statement is valid, in microseconds.
pub const VALID_US: i64 = 15_000_000;

/// Separates this use of the key from any other.
const PURPOSE: &[u8] = b"lantern forwarded request 1\0";

/// Who sent a request, and which request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The name of the client's token.
    pub name: String,
    /// The role of the client's token.
    pub role: String,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// SHA-256 of the body, hexadecimal.
    pub body: String,
    /// End of validity, in microseconds since 1970.
    pub expires_at: i64,
    /// Random; makes each statement different.
    pub nonce: String,
}

/// The key that the hosts of a database share.
#[derive(Clone)]
pub struct ForwardKey([u8; 32]);

impl ForwardKey {
    /// A new key in the form in which it is stored.
    ///
    /// # Errors
    /// When the system provides no random numbers.
    pub fn random() -> Result<String, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The value of the header `Authorization` for a statement; `None` if it cannot be encoded.
    pub fn header(&self, statement: &Statement) -> Option<String> {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(statement).ok()?);
        let mac = URL_SAFE_NO_PAD.encode(self.mac(text.as_bytes())?.finalize().into_bytes());
        Some(format!("{SCHEME} {text}.{mac}"))
    }

    /// The statement of a header value without its scheme; `None` if another key authenticated it, or none.
    pub fn verify(&self, value: &str) -> Option<Statement> {
        let (text, mac) = value.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        self.mac(text.as_bytes())?.verify_slice(&mac).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// `None` cannot happen: HMAC takes keys of any length.
    fn mac(&self, text: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(PURPOSE);
        mac.update(text);
        Some(mac)
    }
}

/// SHA-256 of a body as statements contain it.
pub fn body_digest(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_accepted_unchanged_and_with_the_same_key_only() {
        let key = ForwardKey::parse(&ForwardKey::random().unwrap()).unwrap();
        let other = ForwardKey::parse(&ForwardKey::random().unwrap()).unwrap();
        let statement = Statement {
            name: "ann".into(),
            role: "operator".into(),
            method: "POST".into(),
            path: "/api/v1/plugins/x/pause?a=b".into(),
            body: body_digest(b"{}"),
            expires_at: 7,
            nonce: "n".into(),
        };
        let header = key.header(&statement).unwrap();
        let value = header.strip_prefix("Lantern-Forward ").unwrap();
        assert_eq!(key.verify(value), Some(statement));
        assert_eq!(other.verify(value), None);
        for changed in [&value[1..], &value[..value.len() - 1], "", ".", "a.b"] {
            assert_eq!(key.verify(changed), None, "{changed:?}");
        }
    }
}
