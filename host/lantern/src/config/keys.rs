//! The setting `plugins.keys`: public keys, and paths of files with one. The files are read here, so that an invalid key is a
//! problem of the configuration and not of the first plugin.

use std::path::Path;

use super::settings::Kind;
use super::value::{expected, quote};
use super::{Problem, Problems, Resolved, Value};
use lantern_trust::signature::{KeyError, TrustedKey, is_secret};

/// Length of a public key in base64.
const KEY_CHARACTERS: usize = 56;

/// Size limit of a key file.
const FILE_BYTES_MAX: u64 = 4096;

/// Splits the entries; relative paths begin at `base`. `None` if an entry is a secret key, which must not be printed.
pub fn split(text: &str, base: &Path) -> Option<Vec<String>> {
    text.split(',')
        .map(str::trim)
        .map(|entry| match entry {
            secret if is_secret(secret) => None,
            path if !is_key(path) && !path.is_empty() => Some(base.join(path).display().to_string()),
            other => Some(other.to_owned()),
        })
        .collect()
}

/// A path could have this form as well, but that is unlikely.
fn is_key(entry: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    entry.len() == KEY_CHARACTERS && entry.starts_with("RW") && entry.bytes().all(is_base64)
}

/// Returns the valid keys, and a problem for each invalid entry.
pub fn read(resolved: &Resolved) -> (Vec<TrustedKey>, Problems) {
    let mut keys = Vec::new();
    let mut problems = Problems::new();
    if let Some((Value::List(entries), origin)) = resolved.get("plugins.keys") {
        for entry in entries {
            match read_one(entry) {
                Ok(key) => keys.push(key),
                Err(error) => problems.push(Problem::new(
                    "plugins.keys",
                    origin,
                    format!("{}: {error}", quote(entry)),
                    expected(Kind::Keys),
                )),
            }
        }
    }
    (keys, problems)
}

fn read_one(entry: &str) -> Result<TrustedKey, String> {
    let message = |error: KeyError| error.to_string();
    if is_key(entry) {
        return TrustedKey::parse(entry).map_err(message);
    }
    let text = std::fs::metadata(entry).and_then(|meta| match meta.len() {
        0..=FILE_BYTES_MAX if meta.is_file() => std::fs::read_to_string(entry),
        _ => Err(std::io::Error::other("not a key file")),
    });
    match text {
        Ok(text) => TrustedKey::parse(&text).map_err(message),
        Err(error) => Err(format!(
            "not a minisign public key, and not a readable file: {error}"
        )),
    }
}
