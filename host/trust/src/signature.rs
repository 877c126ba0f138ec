//! Verifies minisign signatures of components against trusted keys, and creates them for authors ([`sign`]). The only
//! module that uses minisign's libraries. It accesses no files and applies no policy: the lifecycle decides what
//! happens to a component without a good signature.

pub mod sign;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::PublicKey;

use lantern_model::batch::clean_text;
use lantern_model::results::plugins::{Signature, SignatureState};

/// Suffix that the name of a signature file adds to the name of the signed file.
pub const FILE_SUFFIX: &str = ".minisig";

/// Largest accepted signature, in bytes. minisign allows 8 KiB for the trusted comment and 1 KiB for the other; the
/// rest of the file has 300 bytes.
pub const SIGNATURE_BYTES_MAX: usize = 10_000;

/// Longest displayed trusted comment, in bytes.
const COMMENT_BYTES_MAX: usize = 200;

/// Beginning of the base64 of an encrypted secret key.
const ENCRYPTED_BEGINNING: &str = "RWRTY0Iy";
/// Beginning of the base64 of an unencrypted secret key.
const PLAIN_BEGINNING: &str = "RWQAAEIy";

/// What happens to components without a good signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Signatures are not checked.
    #[default]
    Off,
    /// They run, and the host warns.
    Warn,
    /// They are rejected before anything else examines them.
    Require,
}

/// The operator's policy for signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What happens to components without a good signature.
    pub rule: Rule,
    /// The trusted keys.
    pub keys: Vec<TrustedKey>,
}

/// The number by which minisign distinguishes keys. It is random and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// A trusted public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    id: KeyId,
    key: PublicKey,
}

/// Why a text is not a public key. The error does not repeat the text, because it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is a secret key.
    #[error("is a secret key, not a public one")]
    Secret,
    /// It is something else.
    #[error("is not a public key of minisign")]
    NotAKey,
}

impl TrustedKey {
    /// Parses a public key: its base64 line, or the two lines of a `.pub` file.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.find(|line| !line.starts_with("untrusted comment:"));
        let line = line.ok_or(KeyError::NotAKey)?;
        if is_secret(line) {
            return Err(KeyError::Secret);
        }
        let key = PublicKey::from_base64(line).map_err(|_| KeyError::NotAKey)?;
        Ok(Self {
            id: id_of(line).ok_or(KeyError::NotAKey)?,
            key,
        })
    }

    /// The key's number.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// Whether a base64 line is a minisign secret key.
pub fn is_secret(line: &str) -> bool {
    line.starts_with(ENCRYPTED_BEGINNING) || line.starts_with(PLAIN_BEGINNING)
}

/// The number in the base64 of a key or a signature: two bytes of algorithm, then eight of number.
fn id_of(line: &str) -> Option<KeyId> {
    let bytes = STANDARD.decode(line.trim()).ok()?;
    let id: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
    Some(KeyId(u64::from_le_bytes(id)))
}

/// The result of checking a component's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The policy disables the check.
    NotChecked,
    /// A trusted key signed exactly these bytes.
    Good {
        /// The signing key.
        key: KeyId,
        /// The signer's comment, which the signature covers; cleaned and shortened.
        comment: String,
    },
    /// The signature is not good.
    Faulty(Fault),
}

/// Why a signature is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no signature.
    #[error("it has no signature")]
    Missing,
    /// The signature file contains something else.
    #[error("the provided signature is not a minisign signature")]
    Malformed,
    /// An unknown key, or one that is no longer trusted, signed it.
    #[error("it is signed with key {key}, which is not among plugins.keys")]
    UnknownKey {
        /// The signing key.
        key: KeyId,
        /// The trusted keys.
        trusted: Vec<KeyId>,
    },
    /// A signature over the file itself, as minisign made them before it hashed files.
    #[error("its signature (of key {key}) is of the old kind, which covers the file instead of its hash")]
    Legacy {
        /// The signing key.
        key: KeyId,
    },
    /// The key is trusted; the bytes, the signature or its comment were changed.
    #[error(
        "its signature (of key {key}) does not match: the file or the comment was changed after signing, or the signature belongs to another file"
    )]
    Changed {
        /// The signing key.
        key: KeyId,
    },
}

impl Fault {
    /// A remedy for the operator or the author.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing => {
                "sign it with lantern plugin sign FILE --secret-key KEY, and provide FILE.minisig with it"
                    .to_owned()
            }
            Self::Malformed => {
                "provide the FILE.minisig that lantern plugin sign or minisign -S wrote".to_owned()
            }
            Self::UnknownKey { trusted, .. } => {
                let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
                let trusted = match trusted.as_slice() {
                    [] => "no key is trusted yet".to_owned(),
                    some => format!("trusted keys: {}", some.join(", ")),
                };
                format!(
                    "{trusted}; have it signed with a trusted key, or add that key to plugins.keys if you trust it and restart"
                )
            }
            Self::Legacy { .. } => {
                "sign it again with lantern plugin sign, or with minisign 0.10 or later".to_owned()
            }
            Self::Changed { .. } => "obtain the file and its signature again from their source".to_owned(),
        }
    }

    fn key(&self) -> Option<KeyId> {
        match self {
            Self::Missing | Self::Malformed => None,
            Self::UnknownKey { key, .. } | Self::Legacy { key } | Self::Changed { key } => Some(*key),
        }
    }
}

impl Policy {
    /// Checks whether `signature`, the content of a `.minisig` file, is a trusted key's signature of `component`.
    pub fn check(&self, component: &[u8], signature: Option<&[u8]>) -> Verdict {
        match (self.rule, signature) {
            (Rule::Off, _) => Verdict::NotChecked,
            (_, None) => Verdict::Faulty(Fault::Missing),
            (_, Some(signature)) => verify(&self.keys, component, signature),
        }
    }
}

/// Checks whether `signature`, the content of a `.minisig` file, is a signature of `component` by one of `keys`.
pub fn verify(keys: &[TrustedKey], component: &[u8], signature: &[u8]) -> Verdict {
    let Some((key, signature)) = read(signature) else {
        return Verdict::Faulty(Fault::Malformed);
    };
    let mut candidates = keys.iter().filter(|trusted| trusted.id == key).peekable();
    if candidates.peek().is_none() {
        let trusted = keys.iter().map(TrustedKey::id).collect();
        return Verdict::Faulty(Fault::UnknownKey { key, trusted });
    }
    for candidate in candidates {
        match candidate.key.verify(component, &signature, false) {
            Ok(()) => {
                let comment = clean_text(signature.trusted_comment(), COMMENT_BYTES_MAX);
                return Verdict::Good { key, comment };
            }
            Err(minisign_verify::Error::UnexpectedAlgorithm) => {
                return Verdict::Faulty(Fault::Legacy { key });
            }
            Err(_) => {}
        }
    }
    Verdict::Faulty(Fault::Changed { key })
}

/// The key that a `.minisig` file names, unverified.
pub fn key_named(signature: &[u8]) -> Option<KeyId> {
    read(signature).map(|(id, _)| id)
}

fn read(signature: &[u8]) -> Option<(KeyId, minisign_verify::Signature)> {
    if signature.len() > SIGNATURE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(signature).ok()?;
    let signature = minisign_verify::Signature::decode(text).ok()?;
    let id = id_of(text.lines().nth(1)?)?;
    Some((id, signature))
}

impl Verdict {
    /// Whether a trusted key signed these bytes.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good { .. })
    }

    /// The verdict as API, CLI and dashboard display it.
    pub fn view(&self) -> Signature {
        let (state, key, comment, reason) = match self {
            Self::NotChecked => (SignatureState::NotChecked, None, None, None),
            Self::Good { key, comment } => (SignatureState::Good, Some(*key), Some(comment.clone()), None),
            Self::Faulty(fault) => {
                let state = match fault {
                    Fault::Missing => SignatureState::Missing,
                    Fault::UnknownKey { .. } => SignatureState::UnknownKey,
                    Fault::Malformed | Fault::Legacy { .. } | Fault::Changed { .. } => SignatureState::Bad,
                };
                (state, fault.key(), None, Some(fault.to_string()))
            }
        };
        Signature {
            state,
            key: key.map(|key| key.to_string()),
            comment,
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
