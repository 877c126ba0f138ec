//! Signatures at every way in. Under a policy that requires them, bytes that no trusted key has signed reach neither the
//! parser nor the compiler, whether somebody brings them or they are kept here from earlier; so a key that is taken out
//! of the list stops, at the next start, what only it had signed.
//!
//! A signature is kept beside its component. One that is good is never replaced by one that is not.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Actor, Inner, LifecycleError, Parcel};
use lantern_plugin::{Digest, LoadError};
use lantern_store::{AuditEntry, AuditOutcome};
use lantern_telemetry::Throttle;
use lantern_trust::signature::{Rule, SIGNATURE_BYTES_MAX, Verdict};

/// Refusals that are written into the audit in a minute. A directory full of unsigned files would fill it, and it is
/// never shortened.
const AUDITED_MAX: u32 = 30;

/// What was found of the signatures that are kept, and how much of refusals is still written down.
pub(super) struct Signatures {
    /// By component. The policy is that of the process, so only another signature makes another verdict.
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
    /// Looks whether a component may come in: by the signature that it brings, else by the one that is kept for the same
    /// bytes. Blocks.
    ///
    /// # Errors
    /// [`LifecycleError::Load`] when it is too large to be looked at, [`LifecycleError::Signature`] when signatures are
    /// required and this one is not good, [`LifecycleError::Unavailable`] when the kept one cannot be read.
    pub(super) fn admit(&self, parcel: &Parcel) -> Result<Verdict, LifecycleError> {
        let limit = self.parts.loader.module_bytes_max();
        let bytes = parcel.component.len();
        if bytes > limit {
            return Err(LifecycleError::Load(LoadError::TooLarge { bytes, limit }));
        }
        let policy = &self.parts.config.signatures;
        let verdict = match (policy.rule, &parcel.signature) {
            (Rule::Off, _) => Verdict::NotChecked,
            (_, Some(signature)) => policy.check(&parcel.component, Some(signature)),
            (_, None) => self
                .verdict_kept(Digest::of(&parcel.component), &parcel.component)
                .map_err(|error| {
                    LifecycleError::Unavailable(format!("its signature cannot be read: {error}"))
                })?,
        };
        match verdict {
            Verdict::Faulty(fault) if policy.rule == Rule::Require => Err(LifecycleError::Signature {
                digest: Digest::of(&parcel.component),
                fault,
            }),
            verdict => Ok(verdict),
        }
    }

    /// Keeps the signature that came with a component that is kept, unless the one that is there is better. Returns
    /// whether it was kept. Blocks.
    pub(super) fn keep_signature(&self, digest: Digest, parcel: &Parcel) -> io::Result<bool> {
        let Some(signature) = &parcel.signature else {
            return Ok(false);
        };
        if !self.is_news(digest, parcel)? {
            return Ok(false);
        }
        let mut kept = self.signatures.kept();
        self.components.put_signature(digest, signature)?;
        kept.remove(&digest);
        Ok(true)
    }

    /// Whether a component that is kept comes with another signature than the one that is kept, which is no worse.
    /// Blocks.
    pub(super) fn is_news(&self, digest: Digest, parcel: &Parcel) -> io::Result<bool> {
        let Some(signature) = &parcel.signature else {
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
            .check(&parcel.component, Some(signature));
        Ok(new.is_good() || !self.verdict_kept(digest, &parcel.component)?.is_good())
    }

    /// What the signature says that is kept for these bytes.
    fn verdict_kept(&self, digest: Digest, component: &[u8]) -> io::Result<Verdict> {
        // From the reading on, or the verdict on a signature that is being replaced would stay.
        let mut kept = self.signatures.kept();
        let signature = self.components.signature(digest)?;
        let policy = &self.parts.config.signatures;
        let verdict = policy.check(component, signature.as_deref());
        kept.insert(digest, verdict.clone());
        Ok(verdict)
    }

    /// What is known of the signatures of components that are kept. Those that were not looked at yet are read now, on a
    /// thread that may block.
    pub(super) async fn verdicts(self: &Arc<Self>, digests: Vec<Digest>) -> BTreeMap<Digest, Verdict> {
        if self.parts.config.signatures.rule == Rule::Off {
            return BTreeMap::new();
        }
        let inner = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let verdict = |digest: Digest| {
                let known = inner.signatures.kept().get(&digest).cloned();
                // One that cannot be read cannot be checked, and cannot run either: that is said where it is tried.
                known.or_else(|| {
                    let component = inner.components.get(digest).ok()?;
                    inner.verdict_kept(digest, &component).ok()
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
                tracing::error!(%error, "the host panicked while it looked at signatures");
                BTreeMap::new()
            }
        }
    }

    /// Writes into the audit that a part of the host has refused a component for its signature; what somebody has sent is
    /// written where it came in.
    pub(super) async fn audit_refusal(
        &self,
        by: &Actor,
        plugin: Option<&str>,
        digest: Option<Digest>,
        detail: &str,
    ) {
        let detail = match self.signatures.audited.note() {
            Ok(0) => detail.to_owned(),
            Ok(missing) => format!("{detail} (and {missing} refusals before it)"),
            Err(_) => return,
        };
        let entry = AuditEntry {
            actor: by.0.clone(),
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
