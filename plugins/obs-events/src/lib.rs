//! Projects the stream `OBS_EVENTS`, events that agents observe on their machines, into the table `obs_events`.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(ObsEvents);

/// The plugin.
pub struct ObsEvents;

impl Plugin for ObsEvents {
    const SOURCES: Sources<Self> = &[Source::stream("obs", "OBS_EVENTS", &["obs.>"], event)];
    const WRITES: Writes = &[ObsEvent::WRITE];
}

/// Events of machines. Repeated events are ignored.
#[derive(Deserialize, Table, Row)]
#[table(name = "obs_events", unique = [pc_id, source, event_record_id], index = [at], index = [pc_id, at])]
#[row(on_conflict = ignore)]
struct ObsEvent {
    #[column(entity)]
    pc_id: String,
    #[column(time)]
    at: Timestamp,
    #[column(facet)]
    kind: String,
    #[column(facet)]
    source: String,
    /// The record number in its source. Events without one are distinct.
    event_record_id: Option<String>,
    payload: Json,
}

fn event(message: &Message<'_>, rows: &mut Rows<ObsEvents>) -> Result {
    rows.put(message.json::<ObsEvent>()?);
    Ok(())
}
