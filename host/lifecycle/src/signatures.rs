//! Signature checks at every entry. If the policy requires signatures, bytes without a signature of a trusted key reach
//! neither the parser nor the compiler, whether they are uploaded or already stored. Removing a key from the list
//! therefore stops its components at the next start.
//!
//! A signature is stored with its component. An invalid one never replaces a valid one.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Actor, Component, Inner, LifecycleError};
use lantern_plugin::{Digest, LoadError};
use lantern_store::{AuditEntry, AuditOutcome};
use lantern_telemetry::Throttle;
use lantern_trust::signature::{Rule, SIGNATURE_BYTES_MAX, Verdict};

/// Rejections written to the audit per minute. A directory full of unsigned files would fill it, and it is never
/// truncated.
const AUDITED_MAX: u32 = 30;

/// The verdicts on stored signatures, and the rate limit of audited rejections.
pub(super) struct Signatures {
    /// By component. The policy is fixed for the process, so only a new signature changes a verdict.
    kept: Mutex<BTreeMap<Digest, Verdict>>,
    audited: Throttle,
}

impl Default for Signatures {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            audited: Throttle::new(AUDITED_MAX, Duration::from_secs(60)),
        }
    }
}

impl Signatures {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Digest, Verdict>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Checks whether a component may be loaded: by its own signature, or else by the signature stored for the same
    /// bytes. Blocks.
    ///
    /// # Errors
    /// [`LifecycleError::Load`] when it is too large, [`LifecycleError::Signature`] when signatures are required and
    /// this one is invalid, [`LifecycleError::Unavailable`] when the stored one cannot be read.
    pub(super) fn check_signature(&self, component: &Component) -> Result<Verdict, LifecycleError> {
        let limit = self.parts.loader.module_bytes_max();
        let bytes = component.bytes.len();
        if bytes > limit {
            return Err(LifecycleError::Load(LoadError::TooLarge { bytes, limit }));
        }
        let policy = &self.parts.config.signatures;
        let verdict = match (policy.rule, &component.signature) {
            (Rule::Off, _) => Verdict::NotChecked,
            (_, Some(signature)) => policy.check(&component.bytes, Some(signature)),
            (_, None) => self
                .check_stored_signature(Digest::of(&component.bytes), &component.bytes)
                .map_err(|error| {
                    LifecycleError::Unavailable(format!("its signature cannot be read: {error}"))
                })?,
        };
        match verdict {
            Verdict::Faulty(fault) if policy.rule == Rule::Require => Err(LifecycleError::Signature {
                digest: Digest::of(&component.bytes),
                fault,
            }),
            verdict => Ok(verdict),
        }
    }

    /// Stores the signature of a stored component, unless the present one is better. Returns whether it was stored.
    /// Blocks.
    pub(super) fn store_signature(&self, digest: Digest, component: &Component) -> io::Result<bool> {
        let Some(signature) = &component.signature else {
            return Ok(false);
        };
        if !self.improves_signature(digest, component)? {
            return Ok(false);
        }
        let mut kept = self.signatures.kept();
        self.components.put_signature(digest, signature)?;
        kept.remove(&digest);
        Ok(true)
    }

    /// Whether the component's signature differs from the stored one and is at least as good. Blocks.
    pub(super) fn improves_signature(&self, digest: Digest, component: &Component) -> io::Result<bool> {
        let Some(signature) = &component.signature else {
            return Ok(false);
        };
        if signature.len() > SIGNATURE_BYTES_MAX
            || self.components.signature(digest)?.as_ref() == Some(signature)
        {
            return Ok(false);
        }
        let new = self
            .parts
            .config
            .signatures
            .check(&component.bytes, Some(signature));
        Ok(new.is_good() || !self.check_stored_signature(digest, &component.bytes)?.is_good())
    }

    /// Checks the signature stored for these bytes.
    fn check_stored_signature(&self, digest: Digest, component: &[u8]) -> io::Result<Verdict> {
        // Hold the lock while reading, so that the verdict on a signature that is being replaced is not cached.
        let mut kept = self.signatures.kept();
        let signature = self.components.signature(digest)?;
        let policy = &self.parts.config.signatures;
        let verdict = policy.check(component, signature.as_deref());
        kept.insert(digest, verdict.clone());
        Ok(verdict)
    }

    /// The verdicts on the signatures of stored components. Missing verdicts are computed on a blocking thread.
    pub(super) async fn verdicts(self: &Arc<Self>, digests: Vec<Digest>) -> BTreeMap<Digest, Verdict> {
        if self.parts.config.signatures.rule == Rule::Off {
            return BTreeMap::new();
        }
        let inner = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let verdict = |digest: Digest| {
                let known = inner.signatures.kept().get(&digest).cloned();
                // An unreadable component cannot be checked and cannot run; loading it reports the error.
                known.or_else(|| {
                    let component = inner.components.get(digest).ok()?;
                    inner.check_stored_signature(digest, &component).ok()
                })
            };
            digests
                .into_iter()
                .filter_map(|digest| Some((digest, verdict(digest)?)))
                .collect()
        });
        match read.await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::error!(%error, "the host panicked while it checked signatures");
                BTreeMap::new()
            }
        }
    }

    /// Writes to the audit that the host rejected a component because of its signature. The API writes rejected
    /// uploads.
    pub(super) async fn audit_rejection(
        &self,
        by: &Actor,
        plugin: Option<&str>,
        digest: Option<Digest>,
        detail: &str,
    ) {
        let detail = match self.signatures.audited.note() {
            Ok(0) => detail.to_owned(),
            Ok(missing) => format!("{detail} (and {missing} earlier rejections)"),
            Err(_) => return,
        };
        let entry = AuditEntry {
            actor: by.clone(),
            action: "plugin.refuse".to_owned(),
            plugin: plugin.map(str::to_owned),
            digest: digest.map(|digest| digest.to_string()),
            outcome: AuditOutcome::Refused,
            detail,
        };
        if let Err(error) = self.parts.store.append_audit(entry).await {
            tracing::error!(%error, "failed to record the refusal of a component in the audit");
        }
    }
}
