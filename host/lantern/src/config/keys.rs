//! The keys of `plugins.keys`: keys themselves and files that hold one, in any mixture. The files are read here, so that
//! a key that cannot be used is a problem of the configuration and not of the first plugin.

use std::path::Path;

use super::settings::Kind;
use super::value::{expected, shown};
use super::{Problem, Problems, Resolved, Value};
use lantern_trust::signature::{KeyError, TrustedKey, is_secret};

/// Characters of a public key in base64.
const KEY_CHARACTERS: usize = 56;

/// Larger than any file with a key.
const FILE_BYTES_MAX: u64 = 4096;

/// What is written, one by one; relative paths begin at `base`. None where an entry is a secret key, which must not be
/// repeated anywhere.
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

/// A path could look like this as well, but nobody has one.
fn is_key(entry: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    entry.len() == KEY_CHARACTERS && entry.starts_with("RW") && entry.bytes().all(is_base64)
}

/// The keys that can be used, and a problem for each of the others.
pub fn read(resolved: &Resolved) -> (Vec<TrustedKey>, Problems) {
    let mut keys = Vec::new();
    let mut problems = Problems::new();
    if let Some((Value::List(entries), origin)) = resolved.get("plugins.keys") {
        for entry in entries {
            match read_one(entry) {
                Ok(key) => keys.push(key),
                Err(what) => problems.push(Problem::new(
                    "plugins.keys",
                    origin,
                    format!("{} {what}", shown(entry)),
                    expected(Kind::Keys),
                )),
            }
        }
    }
    (keys, problems)
}

fn read_one(entry: &str) -> Result<TrustedKey, String> {
    let said = |error: KeyError| error.to_string();
    if is_key(entry) {
        return TrustedKey::parse(entry).map_err(said);
    }
    let text = std::fs::metadata(entry).and_then(|meta| match meta.len() {
        0..=FILE_BYTES_MAX if meta.is_file() => std::fs::read_to_string(entry),
        _ => Err(std::io::Error::other("it is no file of that size")),
    });
    match text {
        Ok(text) => TrustedKey::parse(&text).map_err(said),
        Err(error) => Err(format!(
            "is not a public key of minisign, and as a file it cannot be read: {error}"
        )),
    }
}
