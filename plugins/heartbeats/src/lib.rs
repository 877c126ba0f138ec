//! Projects the heartbeats that agents publish on `heartbeat.>` into the table `agents`: one row a machine, with
//! what its newest heartbeat said, in whatever order they arrive. They travel over core NATS, because the next one
//! is never far.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(Heartbeats);

/// The plugin.
pub struct Heartbeats;

impl Plugin for Heartbeats {
    const SOURCES: Sources<Self> = &[Source::core("heartbeats", &["heartbeat.>"], heartbeat)];
    const WRITES: Writes = &[Agent::WRITE];
}

/// The agents, and when each was last heard of.
#[derive(Deserialize, Table, Row)]
#[table(name = "agents", primary_key = [pc_id])]
#[row(on_conflict = update(key = [pc_id], newer = at, replace = [at, agent_version, hostname, os_family]))]
struct Agent {
    #[column(entity)]
    pc_id: String,
    /// When it was last heard of, by its own clock.
    #[column(time)]
    at: Timestamp,
    #[column(facet)]
    agent_version: String,
    hostname: Option<String>,
    #[column(facet)]
    os_family: Option<String>,
}

fn heartbeat(message: &Message<'_>, rows: &mut Rows<Heartbeats>) -> Result {
    rows.put(message.json::<Agent>()?);
    Ok(())
}
