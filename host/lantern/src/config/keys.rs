//! The setting `plugins.keys`: public keys, and paths of files with one. The files are read here, so that an invalid key is a
//! problem of the configuration and not of the first plugin.

use super::settings::Kind;
use super::value::{expected, is_key, quote};
use super::{Problem, Problems, Resolved, Value};
use lantern_trust::signature::{KeyError, TrustedKey};

/// Size limit of a key file.
const FILE_BYTES_MAX: u64 = 4096;

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
