//! How a host proves to a command on the same machine that it is the host of a data directory, before the command sends
//! it a token.
//!
//! The data directory contains a key that only its owner can read. A command sends a random nonce; the host answers
//! with HMAC-SHA-256 over the nonce and its own address. A process that took over the port of a stopped host does not
//! have the key. It cannot forward the nonce to another host with the same key either, because that host would prove
//! another address.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The file in the data directory that contains the host's key.
pub const KEY_FILE: &str = "host.key";

/// The route that answers with a proof; its parameter is `nonce`.
pub const PROOF_PATH: &str = "/api/v1/prove";

/// Separates this use of the key from any other.
const PURPOSE: &[u8] = b"lantern host proof 1\0";

/// A random challenge, different each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// Generates a nonce.
    ///
    /// # Errors
    /// When the system provides no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Parses the form that `Display` writes.
    ///
    /// # Errors
    /// A description of the form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| "nonce must be 32 bytes in base64url without padding".to_owned())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The key of a data directory with the address of its host.
#[derive(Clone)]
pub struct Identity {
    key: [u8; 32],
    url: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The host at `url`, as `host.json` names it, with the key of its data directory.
    pub fn new(key: [u8; 32], url: impl Into<String>) -> Self {
        let url = url.into();
        Self { key, url }
    }

    /// The proof for a nonce.
    pub fn proof(&self, nonce: Nonce) -> Option<String> {
        let mac = self.mac(nonce)?.finalize().into_bytes();
        Some(URL_SAFE_NO_PAD.encode(mac))
    }

    /// Whether `proof` is the proof for the nonce.
    pub fn accepts(&self, nonce: Nonce, proof: &str) -> bool {
        let proof = URL_SAFE_NO_PAD.decode(proof).ok();
        self.mac(nonce)
            .zip(proof)
            .is_some_and(|(mac, proof)| mac.verify_slice(&proof).is_ok())
    }

    /// `None` cannot happen: HMAC takes keys of any length.
    fn mac(&self, nonce: Nonce) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        // The nonce has a fixed length, so no two pairs have the same bytes.
        for part in [PURPOSE, &nonce.0, self.url.as_bytes()] {
            mac.update(part);
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_one_key_one_address_and_one_nonce() {
        let host = Identity::new([7; 32], "http://127.0.0.1:7");
        let nonce = Nonce::random().unwrap();
        let proof = host.proof(nonce).unwrap();
        assert!(host.accepts(nonce, &proof));
        assert!(!host.accepts(Nonce::random().unwrap(), &proof));
        assert!(!Identity::new([8; 32], "http://127.0.0.1:7").accepts(nonce, &proof));
        assert!(!Identity::new([7; 32], "http://127.0.0.1:8").accepts(nonce, &proof));
        for bad in ["", "x", &proof[1..]] {
            assert!(!host.accepts(nonce, bad), "{bad:?}");
        }
        assert_eq!(Nonce::parse(&nonce.to_string()), Ok(nonce));
        assert!(Nonce::parse("AAAA").is_err() && Nonce::parse("").is_err());
    }
}
