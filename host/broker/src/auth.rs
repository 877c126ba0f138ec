//! Authentication: reads the configured credentials at each connection attempt, so rotated credentials take effect
//! without a restart. Holds no secret longer than one handshake.

use std::path::{Path, PathBuf};

use async_nats::Auth;

use super::config::{Remote, SecretSource};

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    Unreadable {
        /// Expected content of the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A credentials file does not hold a JWT and a seed.
    #[error("{} is not a credentials file: it has no {missing}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The missing part.
        missing: &'static str,
    },
    /// The seed is not valid.
    #[error("{} holds no valid nkey seed", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: nkeys::error::Error,
    },
}

/// Answers the broker's `nonce` with the current credentials of `remote`.
pub(super) async fn authenticate(remote: &Remote, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let mut auth = Auth::new();
    if let Some(path) = &remote.credentials_file {
        let text = read("credentials file", path).await?;
        let mut parts = decorated(&text);
        let missing = |missing| CredentialsError::Format {
            path: path.clone(),
            missing,
        };
        auth.jwt = Some(parts.next().ok_or_else(|| missing("user JWT"))?.to_owned());
        let seed = parts.next().ok_or_else(|| missing("user seed"))?;
        auth.signature = Some(sign(path, seed, nonce)?.1);
    } else if let Some(path) = &remote.nkey_file {
        let text = read("nkey file", path).await?;
        let (public, signature) = sign(path, decorated(&text).next().unwrap_or(text.trim()), nonce)?;
        auth.nkey = Some(public);
        auth.signature = Some(signature);
    }
    auth.username.clone_from(&remote.user);
    auth.password = resolve_secret("password file", remote.password.as_ref()).await?;
    auth.token = resolve_secret("token file", remote.token.as_ref()).await?;
    Ok(auth)
}

async fn resolve_secret(
    what: &'static str,
    secret: Option<&SecretSource>,
) -> Result<Option<String>, CredentialsError> {
    Ok(match secret {
        None => None,
        Some(SecretSource::Inline(secret)) => Some(secret.expose().to_owned()),
        Some(SecretSource::File(path)) => Some(read(what, path).await?.trim().to_owned()),
    })
}

async fn read(what: &'static str, path: &Path) -> Result<String, CredentialsError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| CredentialsError::Unreadable {
            what,
            path: path.to_owned(),
            source,
        })
}

/// The lines between `-----BEGIN …-----` and `------END …------`, in order.
fn decorated(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().map(str::trim).filter(move |line| {
        if line.starts_with("---") {
            inside = line.contains("BEGIN");
            return false;
        }
        inside && !line.is_empty()
    })
}

fn sign(path: &Path, seed: &str, nonce: &[u8]) -> Result<(String, Vec<u8>), CredentialsError> {
    let invalid = |source| CredentialsError::Seed {
        path: path.to_owned(),
        source,
    };
    let pair = nkeys::KeyPair::from_seed(seed).map_err(invalid)?;
    let signature = pair.sign(nonce).map_err(invalid)?;
    Ok((pair.public_key(), signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_credentials_file_answers_the_nonce() {
        let pair = nkeys::KeyPair::new_user();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.creds");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.abc-_\n------END NATS USER JWT------\n\n** IMPORTANT **\n\
             -----BEGIN USER NKEY SEED-----\r\n{}\r\n------END USER NKEY SEED------\n",
            pair.seed().unwrap()
        );
        std::fs::write(&path, text).unwrap();
        let remote = Remote {
            credentials_file: Some(path),
            ..Remote::default()
        };
        let auth = authenticate(&remote, b"nonce").await.unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ0.abc-_"));
        pair.verify(b"nonce", &auth.signature.unwrap()).unwrap();
    }

    #[tokio::test]
    async fn secrets_are_read_from_files_at_each_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let remote = Remote {
            user: Some("ann".into()),
            password: Some(SecretSource::File(path.clone())),
            ..Remote::default()
        };
        let error = authenticate(&remote, b"").await.err().unwrap();
        assert!(error.to_string().contains("password"), "{error}");
        for secret in ["one", "two"] {
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            assert_eq!(
                authenticate(&remote, b"").await.unwrap().password.as_deref(),
                Some(secret)
            );
        }
    }

    #[tokio::test]
    async fn an_invalid_credentials_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.creds");
        std::fs::write(&path, "-----BEGIN NATS USER JWT-----\nabc\n------END").unwrap();
        let remote = Remote {
            credentials_file: Some(path),
            ..Remote::default()
        };
        let error = authenticate(&remote, b"").await.err().unwrap();
        assert!(
            error.to_string().contains("x.creds") && error.to_string().contains("user seed"),
            "{error}"
        );
    }
}
