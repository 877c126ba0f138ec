//! Projects the performance samples of agents on `host_perf.>` into the table `host_perf`. They use core NATS: a chart with a gap is
//! acceptable, so they are not stored while the host is not running.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(HostPerf);

/// The plugin.
pub struct HostPerf;

impl Plugin for HostPerf {
    const SOURCES: Sources<Self> = &[Source::core("perf", &["host_perf.>"], sample)];
    const WRITES: Writes = &[Sample::WRITE];
}

/// Performance samples of machines. Unavailable values are null.
#[derive(Deserialize, Table, Row)]
#[table(name = "host_perf", primary_key = [pc_id, at], retention_days = 30)]
#[row(on_conflict = ignore)]
struct Sample {
    #[column(entity)]
    pc_id: String,
    #[column(time)]
    at: Timestamp,
    /// Usage of all processors.
    #[column(measure = "%")]
    cpu_pct: Option<f64>,
    #[column(measure = "")]
    cpu_count: Option<i64>,
    #[column(measure = "By")]
    mem_used_bytes: Option<i64>,
    #[column(measure = "By")]
    mem_total_bytes: Option<i64>,
    #[column(measure = "By")]
    swap_used_bytes: Option<i64>,
    #[column(measure = "By")]
    swap_total_bytes: Option<i64>,
    #[column(measure = "By/s")]
    disk_read_bytes_per_sec: Option<f64>,
    #[column(measure = "By/s")]
    disk_written_bytes_per_sec: Option<f64>,
    #[column(measure = "By/s")]
    net_rx_bytes_per_sec: Option<f64>,
    #[column(measure = "By/s")]
    net_tx_bytes_per_sec: Option<f64>,
}

fn sample(message: &Message<'_>, rows: &mut Rows<HostPerf>) -> Result {
    rows.put(message.json::<Sample>()?);
    Ok(())
}
