//! Creates keys and signatures with minisign's crate, so that authors need no other tool. A secret key and its password
//! appear in no error and in no log.

use std::time::{SystemTime, UNIX_EPOCH};

use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

use super::{ENCRYPTED_BEGINNING, KeyId, PLAIN_BEGINNING, TrustedKey, verify};

/// A new pair of keys, each as the text of its file.
pub struct NewKeys {
    /// For the signer only.
    pub secret: String,
    /// For publication.
    pub public: String,
}

/// A created signature.
pub struct Signed {
    /// The text of the `.minisig` file.
    pub signature: String,
    /// The public key, in the form that a host's configuration accepts.
    pub public_key: String,
    /// The key's number.
    pub key: KeyId,
}

/// Why signing or key creation failed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The file is not a secret key.
    #[error("the file is not a secret key of minisign")]
    NotASecretKey,
    /// The key cannot be decrypted, or it is damaged.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The comment does not fit on one line of the file.
    #[error("the comment must be one line without control characters, of at most {COMMENT_BYTES_MAX} bytes")]
    Comment,
    /// The library failed.
    #[error("the signature cannot be created: {0}")]
    Failed(String),
}

impl SignError {
    /// A remedy for the author.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotASecretKey => {
                Some("create one with lantern plugin keygen or minisign -G; the .pub file is the public key")
            }
            _ => None,
        }
    }
}

/// Longest trusted comment; a host displays less.
const COMMENT_BYTES_MAX: usize = 1024;

/// The untrusted comment of every signature.
const UNTRUSTED_COMMENT: &str = "signature from lantern plugin sign";

/// Creates a key pair; the secret key is encrypted if a password is given, which takes a second.
///
/// # Errors
/// [`SignError::Failed`].
pub fn make_keys(password: Option<String>) -> Result<NewKeys, SignError> {
    let failed = |error: minisign::PError| SignError::Failed(error.to_string());
    let (pair, comment) = match password {
        Some(password) => (
            KeyPair::generate_encrypted_keypair(Some(password)),
            "minisign encrypted secret key",
        ),
        None => (
            KeyPair::generate_unencrypted_keypair(),
            "minisign unencrypted secret key",
        ),
    };
    let KeyPair { pk, sk } = pair.map_err(failed)?;
    Ok(NewKeys {
        secret: sk.to_box(Some(comment)).map_err(failed)?.into_string(),
        public: pk.to_box().map_err(failed)?.into_string(),
    })
}

/// Whether a secret key file requires a password.
///
/// # Errors
/// [`SignError::NotASecretKey`].
pub fn is_encrypted(secret_key: &str) -> Result<bool, SignError> {
    match secret_key.lines().nth(1) {
        Some(line) if line.starts_with(ENCRYPTED_BEGINNING) => Ok(true),
        Some(line) if line.starts_with(PLAIN_BEGINNING) => Ok(false),
        _ => Err(SignError::NotASecretKey),
    }
}

/// Signs a component. `password` is for a key that [`is_encrypted`]; `comment` is the trusted comment, by default the
/// time and the file's name as minisign writes them.
///
/// # Errors
/// See [`SignError`].
pub fn sign(
    component: &[u8],
    file_name: &str,
    secret_key: &str,
    password: Option<String>,
    comment: Option<&str>,
) -> Result<Signed, SignError> {
    let comment = match comment {
        Some(comment) => comment.to_owned(),
        None => default_comment(file_name),
    };
    let is_displayable = |character: char| character == '\t' || !character.is_control();
    if comment.len() > COMMENT_BYTES_MAX || !comment.chars().all(is_displayable) {
        return Err(SignError::Comment);
    }
    let secret_key = open(secret_key, password)?;
    let failed = |error: minisign::PError| SignError::Failed(error.to_string());
    let public_key = PublicKey::from_secret_key(&secret_key).map_err(failed)?;
    let signature = minisign::sign(
        Some(&public_key),
        &secret_key,
        component,
        Some(&comment),
        Some(UNTRUSTED_COMMENT),
    );
    let signature = signature.map_err(failed)?.into_string();
    let public_key = public_key.to_base64();
    let trusted = TrustedKey::parse(&public_key).map_err(|error| SignError::Failed(error.to_string()))?;
    // Verify the result, so that every published signature is one that a host accepts.
    let key = trusted.id();
    if !verify(&[trusted], component, signature.as_bytes()).is_good() {
        return Err(SignError::Failed("it does not match its own key".to_owned()));
    }
    Ok(Signed {
        signature,
        public_key,
        key,
    })
}

fn open(secret_key: &str, password: Option<String>) -> Result<SecretKey, SignError> {
    let encrypted = is_encrypted(secret_key)?;
    let boxed = SecretKeyBox::from_string(secret_key).map_err(|_| SignError::NotASecretKey)?;
    let opened = match encrypted {
        // Without a password the library would prompt for one.
        true => boxed.into_secret_key(Some(password.unwrap_or_default())),
        false => boxed.into_unencrypted_secret_key(),
    };
    opened.map_err(|error| SignError::Key(error.to_string()))
}

fn default_comment(file_name: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    format!("timestamp:{seconds}\tfile:{file_name}\thashed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Verdict;

    #[test]
    fn a_component_is_signed_with_a_key_with_a_password_or_without() {
        for password in [None, Some("a password".to_owned())] {
            let keys = make_keys(password.clone()).unwrap();
            assert_eq!(is_encrypted(&keys.secret).unwrap(), password.is_some());
            let signed = sign(b"bytes", "orders.wasm", &keys.secret, password, None).unwrap();
            let trusted = TrustedKey::parse(&keys.public).unwrap();
            assert_eq!((trusted.id(), &trusted), (signed.key, &trusted));
            assert_eq!(TrustedKey::parse(&signed.public_key).unwrap(), trusted);
            let verdict = verify(&[trusted], b"bytes", signed.signature.as_bytes());
            assert!(
                matches!(&verdict, Verdict::Good { comment, .. } if comment.contains("file:orders.wasm")),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_signing_error_names_the_cause_and_no_secret() {
        let keys = make_keys(Some("right".into())).unwrap();
        let try_with = |secret: &str, password: &str, comment: &str| {
            let signed = sign(b"x", "x", secret, Some(password.into()), Some(comment));
            signed.err().unwrap().to_string()
        };
        let wrong = try_with(&keys.secret, "wrong", "c");
        assert!(
            wrong.contains("Wrong password") && !wrong.contains("wrong"),
            "{wrong}"
        );
        for not_secret in ["", "two\nlines", &keys.public] {
            assert!(try_with(not_secret, "right", "c").contains("not a secret key"));
        }
        let damaged = format!(
            "{}\n{}",
            "untrusted comment: x",
            &keys.secret.lines().nth(1).unwrap()[..80]
        );
        let damaged = try_with(&damaged, "right", "c");
        assert!(!damaged.contains("RWRTY"), "{damaged}");
        assert!(try_with(&keys.secret, "right", "two\nlines").contains("one line"));
    }
}
