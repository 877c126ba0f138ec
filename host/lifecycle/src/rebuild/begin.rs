//! The start of a rebuild: its replay range, and the proof that no row is lost. A rejected request changes nothing.

use std::sync::Arc;

use super::super::trace::other_history;
use super::super::{Inner, LifecycleError, Requester, adoption};
use super::coverage::{self, SourceCoverage};
use super::{RebuildRequest, StoredOptions, StoredReplayRange};
use lantern_broker::{Retention, StreamFacts};
use lantern_plugin::Digest;
use lantern_projection::{HistoryComparison, LoadedVersion, compare_history};
use lantern_store::{Installation, RebuildId, ReplayRange, SourceHistory};

/// The digest of the version that a request names; the active version if it names none.
fn requested_digest(installation: &Installation, request: &RebuildRequest) -> Result<Digest, LifecycleError> {
    let active = installation.active.and_then(|id| installation.version(id));
    let digest = request.digest.as_ref().or(active.map(|active| &active.digest));
    let Some(digest) = digest else {
        return Err(LifecycleError::Conflict(format!(
            "plugin {} has never run: activate it instead",
            installation.plugin
        )));
    };
    digest
        .parse()
        .map_err(|error| LifecycleError::Conflict(format!("{digest}: {error}")))
}

/// The stream, if it is the one that the source has read.
fn require_same_history(
    compared: HistoryComparison,
    stream: &str,
) -> Result<Box<StreamFacts>, LifecycleError> {
    let reason = match compared {
        HistoryComparison::Same(facts) => return Ok(facts),
        HistoryComparison::Missing => format!("the broker has no stream {stream}"),
        HistoryComparison::Other(reason) => format!(
            "{}; wait until the plugin has begun its new epoch",
            other_history(stream, &reason)
        ),
    };
    Err(LifecycleError::Conflict(reason))
}

impl Inner {
    pub(super) async fn begin_rebuild(
        self: &Arc<Self>,
        plugin: &str,
        request: RebuildRequest,
        by: &Requester,
    ) -> Result<RebuildId, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let digest = requested_digest(&installation, &request)?;
        let digest = self.resolve_digest(plugin, Some(digest)).await?;
        let version = self.load_version(plugin, digest).await?;
        // No other operation changes the plugin meanwhile.
        let _lane = self.enter(plugin).await?;
        let Ok(_no_erasure) = self.erasure.try_read() else {
            return Err(LifecycleError::Conflict(
                "an erasure is running; start the rebuild when it is done".to_owned(),
            ));
        };
        if let Some(id) = self.rebuilds.of(plugin) {
            return Err(LifecycleError::Conflict(format!(
                "rebuild {} of plugin {plugin} is already running",
                id.0
            )));
        }
        let scopes = self.replay_ranges(&version, &request).await?;
        self.check_coverage(&version, &scopes, &request).await?;
        let options = StoredOptions {
            request,
            scopes: scopes
                .iter()
                .map(|scope| StoredReplayRange {
                    source: scope.source.clone(),
                    origin: scope.origin.0,
                    after: scope.after,
                })
                .collect(),
            by: by.to_string(),
        };
        let json = serde_json::to_string(&options)
            .map_err(|error| LifecycleError::Unavailable(error.to_string()))?;
        let mark = by.mark("rebuild.begin", plugin, Some(digest), String::new());
        let id = self
            .parts
            .store
            .rebuilds()
            .begin(adoption(version.plugin()), json, mark)
            .await?;
        tracing::info!(plugin, rebuild = id.0, %digest, %by, "rebuild started");
        self.run_rebuild(id, version, options);
        Ok(id)
    }

    /// The replay range of each stream of the version: what the stream still holds, up to the checkpoint, and not
    /// before the requested start.
    async fn replay_ranges(
        &self,
        version: &LoadedVersion,
        request: &RebuildRequest,
    ) -> Result<Vec<ReplayRange>, LifecycleError> {
        let manifest = version.plugin().manifest();
        let streams: Vec<_> = manifest
            .sources
            .iter()
            .filter_map(|source| Some((source.name.as_str(), source.origin.replay()?.0)))
            .collect();
        if streams.is_empty() {
            return Err(LifecycleError::Conflict(format!(
                "plugin {} reads no stream, and core NATS stores no messages to read again",
                manifest.name
            )));
        }
        if request.from_sequence.is_some() && streams.len() > 1 {
            return Err(LifecycleError::Conflict(
                "a sequence is ambiguous with several streams; give a time".to_owned(),
            ));
        }
        let from_ns = from_time(request)?;
        let (mut scopes, mut empty) = (Vec::new(), Vec::new());
        for (source, stream) in streams {
            let from = (request.from_sequence, from_ns);
            let (scope, nothing) = self
                .replay_range(manifest.name.as_str(), source, stream, from)
                .await?;
            scopes.push(scope);
            empty.extend(nothing);
        }
        if empty.len() == scopes.len() {
            return Err(LifecycleError::Conflict(format!(
                "nothing to rebuild: {}, and --from is after that",
                empty.join("; ")
            )));
        }
        Ok(scopes)
    }

    /// The replay range of one stream; `from` is a sequence or a time in nanoseconds. Also returns why the range is
    /// empty, if the start lies after everything handled.
    async fn replay_range(
        &self,
        plugin: &str,
        source: &str,
        stream: &str,
        from: (Option<u64>, Option<i64>),
    ) -> Result<(ReplayRange, Option<String>), LifecycleError> {
        let Some(attached) = self.parts.store.sources().attach(plugin, source).await? else {
            return Err(LifecycleError::Conflict(format!(
                "plugin {plugin} never read source {source}; activate the version instead"
            )));
        };
        let broker = &self.parts.broker;
        let compared = compare_history(broker, stream, &attached).await?;
        let facts = require_same_history(compared, stream)?;
        let asked = match from {
            (Some(sequence), _) => sequence.saturating_sub(1),
            (None, Some(time)) => broker.sequence_until(stream, time - 1).await?,
            (None, None) => 0,
        };
        let begins_after = self
            .parts
            .store
            .reader()
            .epoch_begins_after(attached.origin)
            .await?;
        let gone = facts.first_sequence.saturating_sub(1);
        let scope = ReplayRange {
            source: source.to_owned(),
            origin: attached.origin,
            after: asked
                .max(gone)
                .max(begins_after)
                .min(attached.checkpoint.sequence),
        };
        let end = attached.checkpoint.sequence.min(facts.last_sequence);
        let empty = (asked > 0 && asked >= end).then(|| {
            format!(
                "stream {stream} ends at sequence {}, and source {source} has handled it up to {}",
                facts.last_sequence, attached.checkpoint.sequence
            )
        });
        Ok((scope, empty))
    }

    /// Rejects the request if rows would be lost.
    async fn check_coverage(
        &self,
        version: &LoadedVersion,
        scopes: &[ReplayRange],
        request: &RebuildRequest,
    ) -> Result<(), LifecycleError> {
        let manifest = version.plugin().manifest();
        let survey = self
            .parts
            .store
            .reader()
            .survey_rebuild(Arc::clone(manifest), scopes.to_vec())
            .await?;
        let mut found = Vec::new();
        for scope in scopes {
            let history = survey
                .histories
                .iter()
                .find(|history| history.origin == scope.origin);
            let available = match history {
                Some(history) => self.available(version, scope, history).await?.1,
                None => 0,
            };
            found.push(SourceCoverage {
                origin: scope.origin,
                after: scope.after,
                available,
            });
        }
        match coverage::rejection(&survey, &found, request) {
            Some(reason) => Err(LifecycleError::Conflict(reason)),
            None => Ok(()),
        }
    }

    /// How many of the messages that the ledger counts in the replay range the stream still holds, or
    /// that were erased: minimum and maximum.
    pub(super) async fn available(
        &self,
        version: &LoadedVersion,
        scope: &ReplayRange,
        history: &SourceHistory,
    ) -> Result<(u64, u64), LifecycleError> {
        let Some((stream, subjects)) = stream_of(version, &scope.source) else {
            return Ok((0, 0));
        };
        let broker = &self.parts.broker;
        let facts = broker.stream_facts(stream).await?;
        // Work queues and interest streams delete acknowledged messages.
        if facts.is_none_or(|facts| facts.retention != Retention::Limits) {
            return Ok((0, 0));
        }
        let mut available = (0, 0);
        for segment in coverage::segments(history, scope.after, subjects) {
            let counted = broker
                .messages_between(stream, &segment.subjects, segment.after, segment.through)
                .await;
            let (least, most) = counted?;
            available = (available.0 + least, available.1 + most);
        }
        // An erased message need not be read again.
        let erased = history.erased_behind(scope.after);
        available = (available.0 + erased, available.1 + erased);
        Ok(available)
    }
}

/// The stream and the subjects that a version reads as this source.
pub(super) fn stream_of<'a>(version: &'a LoadedVersion, source: &str) -> Option<(&'a str, &'a [String])> {
    let (_, source) = version.plugin().manifest().source(source)?;
    source.origin.replay()
}

/// The requested start, in nanoseconds since 1970.
fn from_time(request: &RebuildRequest) -> Result<Option<i64>, LifecycleError> {
    let Some(text) = &request.from_time else {
        return Ok(None);
    };
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok();
    let time = parsed.and_then(|time| time.timestamp_nanos_opt());
    time.map(Some).ok_or_else(|| {
        LifecycleError::Conflict(format!(
            "not a valid time: {text:?}; use the form 2026-05-28T10:41:00Z"
        ))
    })
}
