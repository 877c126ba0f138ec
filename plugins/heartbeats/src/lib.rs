//! Projects the heartbeats of agents on `heartbeat.>` into the table `agents`: one row per machine with its newest heartbeat,
//! independent of the order of arrival. They use core NATS, because a lost heartbeat is soon replaced by the next one.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(Heartbeats);

/// The plugin.
pub struct Heartbeats;

impl Plugin for Heartbeats {
    const SOURCES: Sources<Self> = &[Source::core("heartbeats", &["heartbeat.>"], heartbeat)];
    const WRITES: Writes = &[Agent::WRITE];
}

/// The agents with the time of their last heartbeat.
#[derive(Deserialize, Table, Row)]
#[table(name = "agents", primary_key = [pc_id])]
#[row(on_conflict = update(key = [pc_id], newer = at, replace = [at, agent_version, hostname, os_family]))]
struct Agent {
    #[column(entity)]
    pc_id: String,
    /// The time of the last heartbeat, by the clock of the agent.
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
