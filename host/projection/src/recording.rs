//! Status and metrics of a projection after calls into the plugin and after commits.

use super::{LoadedVersion, Projection, Purpose};
use lantern_plugin::Projected;
use lantern_store::Committed;
use lantern_telemetry::{Outcome, RowEffect};

impl Projection {
    pub(super) fn record_calls(
        &self,
        version: &LoadedVersion,
        projected: &Projected,
        memory_peak_bytes: usize,
    ) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let live = self.purpose == Purpose::Live;
        if live {
            self.metrics.projected(plugin, projected.busy);
        }
        version.count_calls(projected, memory_peak_bytes);
        for fault in &projected.faults {
            let (class, reason, sequence) = (fault.class.as_str(), &fault.reason, fault.first_sequence);
            let (messages, rejected) = (fault.messages, fault.rejected);
            tracing::warn!(
                plugin,
                source,
                class,
                reason,
                sequence,
                messages,
                rejected,
                "a call into the plugin failed"
            );
            if live {
                self.metrics.plugin_fault(plugin, class);
            }
        }
    }

    /// Updates status and metrics after a commit.
    pub(super) fn record_commit(&self, version: &LoadedVersion, committed: &Committed, through: u64) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let counts = committed.counts;
        let dead = counts.dead.saturating_sub(committed.forgotten);
        version.count(counts.messages, dead);
        for (sequence, reason) in &committed.refused {
            tracing::warn!(
                plugin,
                source,
                sequence,
                reason,
                "the database refused a message's rows"
            );
        }
        if self.purpose == Purpose::Live {
            self.record_metrics(version, committed);
        }
        self.progress.set_checkpoint(through);
        self.progress.add_open_dead_letters(dead);
        if let Some(gate) = &self.gate {
            gate.record_checkpoint(through);
        }
        self.status.send_modify(|status| {
            status.checkpoint = through;
            status.messages += counts.messages;
            status.rows += counts.rows;
            status.inserted += counts.inserted;
            status.updated += counts.updated;
            status.present += counts.present();
            status.dead_letters += dead;
            status.missing += counts.missing;
            status.stalled_since_ms = None;
            status.clear_error();
            status.lag = status.lag.map(|lag| lag.saturating_sub(counts.messages));
        });
    }

    /// Records a commit of the live tables. A rebuild does not count its messages a second time.
    fn record_metrics(&self, version: &LoadedVersion, committed: &Committed) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let counts = committed.counts;
        self.metrics.committed(committed.took, counts.rows);
        self.metrics
            .messages(plugin, source, Outcome::Projected, counts.projected);
        self.metrics
            .messages(plugin, source, Outcome::Skipped, counts.skipped);
        self.metrics.messages(plugin, source, Outcome::Dead, counts.dead);
        let manifest = version.plugin().manifest();
        for entry in &committed.spent {
            if let lantern_model::batch::Outcome::Reject(rejection) = &entry.outcome {
                self.metrics.dead_letters(plugin, source, rejection.class, 1);
            }
        }
        for (write, effects) in manifest.writes.iter().zip(&committed.effects) {
            let table = manifest.table_of(write).name.as_str();
            for (effect, rows) in [
                (RowEffect::Inserted, effects.inserted),
                (RowEffect::Updated, effects.updated),
                (RowEffect::Present, effects.present),
            ] {
                if rows > 0 {
                    self.metrics.rows(plugin, table, effect, rows);
                }
            }
        }
    }
}
