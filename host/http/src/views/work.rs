//! Converts traces, the work of versions, reprojections and canary reports. Rows fail only if JSON cannot represent them.

use serde_json::value::{RawValue, to_raw_value};

use lantern_api as api;
use lantern_lifecycle as lifecycle;
use lantern_store::RowView;
use lantern_store::comparison::{RowExample, TableComparison};
use lantern_store::scratch::{RejectExample, Rejects};

/// A row and its provenance.
///
/// # Errors
/// If JSON cannot represent a value.
pub fn trace(trace: lifecycle::Trace) -> Result<api::Trace, serde_json::Error> {
    Ok(api::Trace {
        row: to_raw_value(&trace.row)?,
        table: trace.table,
        id: trace.id,
        plugin: trace.plugin,
        version: trace.version,
        digest: trace.digest,
        was_dead_letter: trace.healed,
        source: trace.source,
        stream: trace.stream,
        epoch: trace.epoch,
        sequence: trace.sequence,
        note: trace.note,
        message: trace.message.map(|message| api::TracedMessage {
            found_in: message.found_in.to_owned(),
            subject: message.subject,
            published: message.published,
            headers: message.headers,
            payload_bytes: message.payload_bytes,
            payload_text: message.payload_text,
            payload_base64: message.payload_base64,
        }),
        message_missing: trace.gone,
    })
}

/// The work of a version.
pub fn work(work: lifecycle::VersionWork) -> api::VersionWork {
    let range = |range: lifecycle::WorkRange| api::WorkRange {
        source: range.source,
        stream: range.stream,
        epoch: range.epoch,
        first_sequence: range.first_sequence,
        last_sequence: range.last_sequence,
        messages: range.messages,
        projected: range.projected,
        skipped: range.skipped,
        dead: range.dead,
        missing: range.missing,
        row_count: range.rows,
        row_count_by_table: range.tables,
        first_at: range.first_at,
        last_at: range.last_at,
    };
    api::VersionWork {
        plugin: work.plugin,
        version: work.version,
        digest: work.digest,
        ranges: work.ranges.into_iter().map(range).collect(),
        resolved: work.healed,
    }
}

/// The result of a reprojection.
pub fn reprojected(report: lifecycle::Reprojected) -> api::Reprojected {
    api::Reprojected {
        plugin: report.plugin,
        from: report.from,
        from_digest: report.from_digest,
        to: report.to,
        to_digest: report.to_digest,
        messages: report.done.messages,
        former_dead_letters: report.letters,
        rows_removed: report.done.rows_removed,
        inserted: report.done.effects.inserted,
        updated: report.done.effects.updated,
        present: report.done.effects.present,
        resolved: report.done.resolved,
        dead: report.done.rejected,
        messages_gone: report.gone,
        notes: report.notes,
        partial: report.partial,
    }
}

/// The result of a canary.
///
/// # Errors
/// If JSON cannot represent a value.
pub fn canary(report: lifecycle::CanaryReport) -> Result<api::CanaryReport, serde_json::Error> {
    Ok(api::CanaryReport {
        plugin: report.plugin,
        old: report.old.map(canary_version),
        new: canary_version(report.new),
        tables: report
            .tables
            .into_iter()
            .map(comparison)
            .collect::<Result<_, _>>()?,
        sources: report.sources.into_iter().map(canary_source).collect(),
        differences: report.differences,
        effect: report.effect,
        needs_rebuild: report.needs_rebuild,
        took_ms: report.took_ms,
        partial: report.partial,
    })
}

fn canary_version(version: lifecycle::VersionReport) -> api::CanaryVersion {
    api::CanaryVersion {
        version: version.version,
        digest: version.digest,
        messages: version.messages,
        projected: version.projected,
        skipped: version.skipped,
        rejected: version.rejected,
        rows: version.rows,
        rejects: version.rejects.into_iter().map(rejects).collect(),
        faults: version.faults,
        decode_ms: version.decode_ms,
        decode_us_per_message: version.decode_us_per_message,
        memory_peak_bytes: version.memory_peak_bytes as u64,
    }
}

fn rejects(rejects: Rejects) -> api::Rejects {
    let example = |example: RejectExample| api::RejectExample {
        source: example.source,
        sequence: example.sequence,
        reason: example.reason,
    };
    api::Rejects {
        class: rejects.class,
        rejected: rejects.messages,
        examples: rejects.examples.into_iter().map(example).collect(),
    }
}

fn canary_source(source: lifecycle::CanarySource) -> api::CanarySource {
    api::CanarySource {
        source: source.source,
        stream: source.stream,
        old: source.old,
        new: source.new,
        messages: source.messages,
        first_sequence: source.first_sequence,
        last_sequence: source.last_sequence,
        note: source.note,
    }
}

fn comparison(table: TableComparison) -> Result<api::TableComparison, serde_json::Error> {
    Ok(api::TableComparison {
        table: table.table,
        key: table.key,
        same: table.same,
        changed: table.changed,
        only_old: table.only_old,
        only_new: table.only_new,
        examples: table
            .examples
            .into_iter()
            .map(row_example)
            .collect::<Result<_, _>>()?,
    })
}

fn row_example(example: RowExample) -> Result<api::RowExample, serde_json::Error> {
    let raw = |row: Option<RowView>| -> Result<Option<Box<RawValue>>, serde_json::Error> {
        row.as_ref().map(to_raw_value).transpose()
    };
    Ok(api::RowExample {
        source: example.source,
        sequence: example.sequence,
        old: raw(example.old)?,
        new: raw(example.new)?,
    })
}
