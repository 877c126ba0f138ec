//! Resolves a reference to a version: a digest, a prefix of it, or a version number that only one version has.

use super::{Lifecycle, LifecycleError};
use lantern_model::batch::clean_text;
use lantern_plugin::Digest;
use lantern_store::VersionRecord;

/// Minimum prefix length; eight hex digits make accidental matches and typing errors that match unlikely.
const DIGITS_MIN: usize = 8;

/// Maximum length of the quoted reference in an error, in bytes.
const SHOWN_BYTES_MAX: usize = 80;

impl Lifecycle {
    /// The digest of the version of a plugin that `text` refers to: a digest or a prefix of at least eight digits, with
    /// or without `sha256:`, or a version number that only one version has.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`], [`LifecycleError::NoVersion`], [`LifecycleError::Conflict`] when several versions
    /// match, and [`LifecycleError::Unavailable`].
    pub async fn resolve_version(&self, plugin: &str, text: &str) -> Result<Digest, LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        resolve_version(plugin, &installation.versions, text)
    }

    /// Maximum size of a component, in bytes.
    pub fn module_bytes_max(&self) -> usize {
        self.inner.parts.loader.module_bytes_max()
    }
}

fn resolve_version(plugin: &str, versions: &[VersionRecord], text: &str) -> Result<Digest, LifecycleError> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let is_digits = digits.len() >= DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let by_digest = |version: &&VersionRecord| {
        let hex = version.digest.strip_prefix("sha256:");
        is_digits && hex.is_some_and(|hex| hex.starts_with(&digits.to_ascii_lowercase()))
    };
    let by_number = |version: &&VersionRecord| version.version == text;
    let mut found: Vec<&VersionRecord> = versions.iter().filter(by_digest).collect();
    found.extend(versions.iter().filter(by_number));
    let missing = || LifecycleError::NoVersion {
        plugin: plugin.to_owned(),
        version: clean_text(text, SHOWN_BYTES_MAX),
    };
    match found.as_slice() {
        [] => Err(missing()),
        [one] => one.digest.parse().map_err(|_| missing()),
        several => {
            let digests: Vec<&str> = several.iter().map(|version| version.digest.as_str()).collect();
            Err(LifecycleError::Conflict(format!(
                "{} versions of plugin {plugin} match {}: {}",
                several.len(),
                clean_text(text, SHOWN_BYTES_MAX),
                digests.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::batch::Timestamp;
    use lantern_store::VersionId;

    fn version(number: &str, digest: Digest) -> VersionRecord {
        VersionRecord {
            id: VersionId(1),
            plugin: "p".into(),
            version: number.into(),
            digest: digest.to_string(),
            contract: "0.1.0".into(),
            loaded_at: Timestamp(0),
            activated_at: None,
            component_bytes: None,
            came_from: None,
            failed: None,
            description: None,
        }
    }

    #[test]
    fn a_version_is_resolved_by_digest_prefix_or_number() {
        let [one, two, three] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        let versions = [
            version("1.0.0", one),
            version("1.0.0", two),
            version("2.0.0", three),
        ];
        let check = |text: &str| resolve_version("p", &versions, text);
        for text in [
            one.to_string(),
            one.hex(),
            one.hex()[..8].to_owned(),
            one.hex().to_uppercase(),
            format!("sha256:{}", &one.hex()[..9]),
        ] {
            assert_eq!(check(&text).unwrap(), one, "{text}");
        }
        assert_eq!(check("2.0.0").unwrap(), three);
        let both = check("1.0.0").unwrap_err();
        assert!(
            matches!(&both, LifecycleError::Conflict(message) if message.contains(&one.hex()) && message.contains(&two.hex())),
            "{both}"
        );
        for text in [
            "",
            "sha256:",
            &one.hex()[..7],
            &two.hex()[1..],
            "3.0.0",
            "../x",
            "ä",
        ] {
            let none = check(text).unwrap_err();
            assert!(matches!(none, LifecycleError::NoVersion { .. }), "{text}: {none}");
        }
    }
}
