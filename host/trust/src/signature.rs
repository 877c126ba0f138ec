//! Signatures of plugins, as minisign writes them: which keys are trusted, and what a signature says of a component's
//! bytes; and, for authors, how they are made ([`sign`]). Alone in naming minisign's libraries. It touches no files, and it
//! decides nothing: what becomes of a component whose signature is not good is for the lifecycle to say.

pub mod sign;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use lantern_model::batch::clean_text;

/// What the name of a signature's file has behind the name of the file that is signed.
pub const FILE_SUFFIX: &str = ".minisig";

/// Largest signature that is looked at, in bytes. minisign allows 8 KiB for the trusted comment and 1 KiB for the other;
/// the rest of the file has 300 bytes.
pub const SIGNATURE_BYTES_MAX: usize = 10_000;

/// Longest trusted comment that is shown, in bytes.
const COMMENT_BYTES_MAX: usize = 200;

/// How the base64 of a secret key with a password begins.
const ENCRYPTED_BEGINNING: &str = "RWRTY0Iy";
/// And of one without.
const PLAIN_BEGINNING: &str = "RWQAAEIy";

/// What becomes of components whose signature is not good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Nobody looks at signatures.
    #[default]
    Off,
    /// They run, and it is said.
    Warn,
    /// They are refused before anything else looks at them.
    Require,
}

/// What the operator has decided of signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of components whose signature is not good.
    pub rule: Rule,
    /// Whose signatures are good.
    pub keys: Vec<TrustedKey>,
}

/// The number by which minisign tells keys apart. It is chosen at random and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A public key whose signatures are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    id: KeyId,
    key: PublicKey,
}

/// Why a text is not the key that was asked for. The text is not repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is the half that nobody but its owner may have.
    #[error("is a secret key, and not a public one")]
    Secret,
    /// It is something else.
    #[error("is not a public key of minisign")]
    NotAKey,
}

impl TrustedKey {
    /// Reads a public key: its line in base64, or the two lines of a `.pub` file.
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

    /// Its number.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// Whether a line of base64 is a secret key of minisign.
pub fn is_secret(line: &str) -> bool {
    line.starts_with(ENCRYPTED_BEGINNING) || line.starts_with(PLAIN_BEGINNING)
}

/// The number in the base64 of a key or a signature: two bytes of algorithm, then eight of number.
fn id_of(line: &str) -> Option<KeyId> {
    let bytes = STANDARD.decode(line.trim()).ok()?;
    let id: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
    Some(KeyId(u64::from_le_bytes(id)))
}

/// What was found of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The policy is not to look.
    NotChecked,
    /// A key that is trusted has signed just these bytes.
    Good {
        /// Which key.
        key: KeyId,
        /// What the signer has said of it, which the signature covers; cleaned and shortened.
        comment: String,
    },
    /// Not so.
    Faulty(Fault),
}

/// Why a signature is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error("it has no signature")]
    Missing,
    /// There is something else in its place.
    #[error("what came as its signature is not a signature of minisign")]
    Malformed,
    /// Someone else has signed, or a key that is not trusted any more.
    #[error("it is signed with key {key}, which is not among plugins.keys")]
    UnknownKey {
        /// Which key.
        key: KeyId,
        /// Those that would do.
        trusted: Vec<KeyId>,
    },
    /// A signature over the file itself, as minisign made them before it hashed files.
    #[error("its signature (of key {key}) is of the old kind that covers the file and not its hash")]
    Legacy {
        /// Which key.
        key: KeyId,
    },
    /// The key is right; the bytes, the signature or its comment are not what they were.
    #[error(
        "its signature (of key {key}) does not fit: the file or the comment was changed after it was signed, or it belongs to another file"
    )]
    Changed {
        /// Which key.
        key: KeyId,
    },
}

impl Fault {
    /// What the operator or the author can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing => {
                "sign it with lantern plugin sign FILE --secret-key KEY, and bring FILE.minisig along"
                    .to_owned()
            }
            Self::Malformed => {
                "bring the FILE.minisig that lantern plugin sign or minisign -S wrote".to_owned()
            }
            Self::UnknownKey { trusted, .. } => {
                let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
                let trusted = match trusted.as_slice() {
                    [] => "none is trusted yet".to_owned(),
                    some => format!("trusted are {}", some.join(", ")),
                };
                format!(
                    "{trusted}; have it signed anew, or add that key to plugins.keys if you trust it and restart"
                )
            }
            Self::Legacy { .. } => {
                "sign it anew with lantern plugin sign, or with minisign 0.10 or later".to_owned()
            }
            Self::Changed { .. } => {
                "get the file and its signature once more from where they were made".to_owned()
            }
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
    /// Looks whether `signature`, the content of a `.minisig` file, is that of a trusted key over `component`.
    pub fn check(&self, component: &[u8], signature: Option<&[u8]>) -> Verdict {
        match (self.rule, signature) {
            (Rule::Off, _) => Verdict::NotChecked,
            (_, None) => Verdict::Faulty(Fault::Missing),
            (_, Some(signature)) => verify(&self.keys, component, signature),
        }
    }
}

/// Looks whether `signature`, the content of a `.minisig` file, is that of one of `keys` over `component`.
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

/// The key that a `.minisig` file names; nothing of it is proved.
pub fn key_named(signature: &[u8]) -> Option<KeyId> {
    read(signature).map(|(id, _)| id)
}

fn read(signature: &[u8]) -> Option<(KeyId, Signature)> {
    if signature.len() > SIGNATURE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(signature).ok()?;
    let signature = Signature::decode(text).ok()?;
    let id = id_of(text.lines().nth(1)?)?;
    Some((id, signature))
}

impl Verdict {
    /// Whether a trusted key has signed these bytes.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Good { .. })
    }

    /// What the faces are told.
    pub fn view(&self) -> SignatureView {
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
        SignatureView {
            state,
            key,
            comment,
            reason,
        }
    }
}

/// What is known of a component's signature, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureState {
    /// A trusted key has signed these bytes.
    Good,
    /// There is none.
    Missing,
    /// Its key is not trusted.
    UnknownKey,
    /// It is none, is of the old kind, or does not fit.
    Bad,
    /// The policy is not to look.
    NotChecked,
}

/// What the faces are told of a component's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Signature)]
pub struct SignatureView {
    /// In a word.
    pub state: SignatureState,
    /// The key that it names, as minisign writes it.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// What the signer has said of it; only of a good one.
    pub comment: Option<String>,
    /// Why it is not good.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests;
