//! The input: `obs` events. Uses recorded events if the data set is available and generated ones otherwise.

use std::io::BufRead;
use std::path::Path;

use anyhow::Context;
use async_nats::jetstream;
use serde_json::{Value, json};

use crate::nats::NatsServer;

pub struct Events {
    pub origin: String,
    pub messages: Vec<(String, Vec<u8>)>,
}

impl Events {
    pub fn mean_bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|(_, payload)| payload.len())
            .sum::<usize>()
            / self.messages.len().max(1)
    }
}

/// Returns `count` events. Repeats recorded events with new record numbers until there are enough.
pub fn load(data: Option<&Path>, count: usize) -> anyhow::Result<Events> {
    let Some(path) = data else {
        return Ok(generated(count));
    };
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let records: Vec<Value> = std::io::BufReader::new(file)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<anyhow::Result<_>>()?;
    let rounds = count.div_ceil(records.len().max(1));
    let messages = (0..rounds)
        .flat_map(|round| records.iter().map(move |record| windows_event(record, round)))
        .take(count)
        .collect();
    Ok(Events {
        origin: path.display().to_string(),
        messages,
    })
}

/// Converts a Windows event log record to an `obs` event.
pub fn windows_event(record: &Value, round: usize) -> (String, Vec<u8>) {
    let text = |key: &str| record[key].as_str().unwrap_or_default();
    let pc_id = text("Hostname");
    let kind = match record["EventID"].as_u64().unwrap_or_default() {
        4624 => "logon".to_owned(),
        4634 => "logoff".to_owned(),
        1 | 4688 => "process_start".to_owned(),
        other => format!("winlog_{other}"),
    };
    let number = record["RecordNumber"].as_u64().unwrap_or_default();
    let id = if round == 0 {
        number.to_string()
    } else {
        format!("{number}-{round}")
    };
    let event = json!({
        "pc_id": pc_id, "at": text("@timestamp"), "kind": kind, "source": format!("winlog:{}", text("Channel")),
        "event_record_id": id, "payload": record,
    });
    (
        format!("obs.{}", pc_id.replace('.', "-")),
        event.to_string().into_bytes(),
    )
}

/// Generates events like those of an agent: 200 machines, a few event kinds, ids that increase per machine.
fn generated(count: usize) -> Events {
    let kinds = [
        "logon",
        "logoff",
        "process_start",
        "service_started",
        "package_installed",
    ];
    let messages = (0..count)
        .map(|number| {
            let pc = format!("pc-{:03}", (number * 7919) % 200);
            let at = chrono::DateTime::from_timestamp_micros(1_780_000_000_000_000 + number as i64 * 15_000)
                .unwrap_or_default();
            let event = json!({
                "pc_id": pc, "at": at.to_rfc3339(), "kind": kinds[number % kinds.len()],
                "source": "winlog:Security", "event_record_id": number.to_string(),
                "payload": {"user": format!("user{}", number % 50), "logon_type": number % 11, "ip": "10.0.0.7",
                    "process": "C:\\Windows\\System32\\svchost.exe", "elevated": number % 3 == 0},
            });
            (format!("obs.{pc}"), event.to_string().into_bytes())
        })
        .collect();
    Events {
        origin: "a generator".to_owned(),
        messages,
    }
}

/// Creates the stream `OBS_EVENTS` and publishes the events to it.
pub fn publish(server: &NatsServer, events: &Events) -> anyhow::Result<()> {
    publish_into(&server.url(), events)
}

/// Same as [`publish`], but takes a URL, so that another thread can call it.
pub fn publish_into(url: &str, events: &Events) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let context = jetstream::new(async_nats::connect(url).await?);
        let config = jetstream::stream::Config {
            name: "OBS_EVENTS".to_owned(),
            subjects: vec!["obs.>".to_owned()],
            ..jetstream::stream::Config::default()
        };
        context.get_or_create_stream(config).await?;
        let mut acks = std::collections::VecDeque::new();
        for (subject, payload) in &events.messages {
            acks.push_back(context.publish(subject.clone(), payload.clone().into()).await?);
            if acks.len() >= 1_000
                && let Some(ack) = acks.pop_front()
            {
                ack.await?;
            }
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    })
}

pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}
