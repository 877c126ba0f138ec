//! Converts results of the lifecycle and the store into the types of the API. `tables` and `items` convert rows.

mod work;

use lantern_api as api;
use lantern_lifecycle as lifecycle;
use lantern_store as store;
use lantern_trust::signature;

pub use work::{canary, reprojected, trace, work};

/// A plugin.
pub fn plugin(view: lifecycle::PluginView) -> api::Plugin {
    api::Plugin {
        name: view.name,
        state: version_state(view.state),
        active: view.active,
        previous: view.previous,
        paused: view.paused,
        sources: view.sources.into_iter().collect(),
        tables: view.tables.into_iter().collect(),
        used: view.used.map(plugin_use),
        versions: view.versions.into_iter().map(version).collect(),
    }
}

/// The resources that a version used.
pub fn plugin_use(view: lifecycle::UseView) -> api::PluginUse {
    api::PluginUse {
        messages_passed: view.messages,
        busy_us: view.busy_us,
        memory_peak_bytes: view.memory_peak_bytes,
        faults: view.faults,
    }
}

/// A version of a plugin.
pub fn version(view: lifecycle::VersionView) -> api::PluginVersion {
    api::PluginVersion {
        version: view.version,
        digest: view.digest,
        contract: view.contract,
        state: version_state(view.state),
        installed_at: view.installed_at,
        activated_at: view.activated_at,
        component_bytes: view.component_bytes,
        came_from: view.came_from,
        failed: view.failed,
        signature: signature(view.signature),
    }
}

/// The state of a version.
pub fn version_state(state: lifecycle::VersionState) -> api::VersionState {
    match state {
        lifecycle::VersionState::Installed => api::VersionState::Installed,
        lifecycle::VersionState::Active => api::VersionState::Active,
        lifecycle::VersionState::Paused => api::VersionState::Paused,
        lifecycle::VersionState::Failed => api::VersionState::Failed,
        lifecycle::VersionState::Replaced => api::VersionState::Replaced,
    }
}

/// The signature of a component.
pub fn signature(view: signature::SignatureView) -> api::Signature {
    api::Signature {
        state: match view.state {
            signature::SignatureState::Good => api::SignatureState::Good,
            signature::SignatureState::Missing => api::SignatureState::Missing,
            signature::SignatureState::UnknownKey => api::SignatureState::UnknownKey,
            signature::SignatureState::Bad => api::SignatureState::Bad,
            signature::SignatureState::NotChecked => api::SignatureState::NotChecked,
        },
        key: view.key.map(|key| key.to_string()),
        comment: view.comment,
        reason: view.reason,
    }
}

/// What a version declares, and its limits.
pub fn description(view: lifecycle::DescriptionView) -> api::Description {
    api::Description {
        version: version(view.version),
        description: view.description,
        imports: view.imports,
        about: view.about,
        limits: view.limits,
    }
}

/// A file or version that does not run.
pub fn load_failure(failure: lifecycle::LoadFailure) -> api::LoadFailure {
    api::LoadFailure {
        subject: failure.subject.to_string(),
        reason: failure.reason,
        blocks_messages: failure.blocks_messages,
        unsigned: failure.unsigned,
    }
}

/// The result of a take-over of one consumer.
pub fn taken_over(consumer: lifecycle::ConsumerTakenOver) -> api::ConsumerTakenOver {
    api::ConsumerTakenOver {
        stream: consumer.stream,
        consumer: consumer.consumer,
        outcome: match consumer.outcome {
            lifecycle::TakeOverOutcome::TakenOver => api::TakeOverOutcome::TakenOver,
            lifecycle::TakeOverOutcome::Own => api::TakeOverOutcome::Own,
            lifecycle::TakeOverOutcome::Absent => api::TakeOverOutcome::Absent,
        },
        before: consumer.before,
    }
}

/// A consumer that is still on the broker.
pub fn consumer_left(left: lifecycle::ConsumerLeft) -> api::ConsumerLeft {
    api::ConsumerLeft {
        stream: left.stream,
        consumer: left.consumer,
        reason: left.reason,
    }
}

/// A rebuild.
pub fn rebuild(view: lifecycle::RebuildView) -> api::Rebuild {
    api::Rebuild {
        id: view.id.0,
        plugin: view.plugin,
        digest: view.digest,
        state: view.state,
        started_at: view.started_at,
        ended_at: view.ended_at,
        reason: view.reason,
        progress: view.progress.map(|progress| api::RebuildProgress {
            messages: progress.messages,
            messages_left: progress.left,
            rate: progress.rate,
            eta_seconds: progress.eta_seconds,
        }),
        outcome: view.outcome.map(rebuild_outcome),
        previous_until: view.previous_until,
    }
}

fn rebuild_outcome(outcome: store::RebuildOutcome) -> api::RebuildOutcome {
    let table = |table: store::TableOutcome| api::TableOutcome {
        table: table.table,
        change: table.change,
        rows_before: table.rows_before,
        rows_after: table.rows_after,
    };
    api::RebuildOutcome {
        messages: outcome.messages,
        row_count: outcome.rows,
        rows_carried_over: outcome.carried_over,
        rows_lost: outcome.left_out,
        tables: outcome.tables.into_iter().map(table).collect(),
        accepted: outcome.accepted,
    }
}

/// The totals of retried dead letters.
pub fn retry_totals(totals: store::RetryTotals) -> api::RetryTotals {
    api::RetryTotals {
        retried: totals.tried,
        resolved: totals.resolved,
        inserted: totals.effects.inserted,
        updated: totals.effects.updated,
        present: totals.effects.present,
    }
}

/// What an erasure has removed, or would remove.
pub fn forget_report(report: lifecycle::ForgetReport) -> api::ForgetReport {
    let table = |table: lifecycle::ForgottenTable| api::ForgottenTable {
        table: table.table,
        rows_matching: table.matching,
        rows_removed: table.removed,
    };
    let stream = |stream: lifecycle::ForgottenStream| api::ForgottenStream {
        stream: stream.stream,
        messages_deleted: stream.deleted,
        messages_gone: stream.gone,
        messages_left: stream.left,
        reason: stream.reason,
        remedy: stream.remedy,
    };
    api::ForgetReport {
        dry_run: report.dry_run,
        tables: report.tables.into_iter().map(table).collect(),
        messages: report.messages,
        dead_letters: report.dead_letters,
        streams: report.streams.into_iter().map(stream).collect(),
        kept_tables: report.kept_tables,
        vacuumed: report.vacuumed,
        log_emptied: report.log_emptied,
        notes: report.notes,
    }
}
