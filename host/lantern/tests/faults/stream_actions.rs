//! The faults of streams, their consumers and their messages.

use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, pull};

use super::journal::context;
use super::plan::Action;
use super::raw;
use super::streams::{HEADERS, HOSTILE, Stream};
use super::verdict::{Fate, Kind};
use super::world::{World, run, without_removed};

impl World {
    pub fn act_on_stream(&mut self, action: &Action) {
        match *action {
            Action::Purge { stream, percent } => self.purge(stream, percent),
            Action::DeleteMessage { stream, behind } => self.delete_message(stream, behind),
            Action::RecreateStream { stream, settled } => self.recreate(stream, settled),
            Action::StepDown { stream, consumer } => self.step_down(stream, consumer),
            Action::DeleteConsumer(stream) => self.delete_consumer(stream),
            Action::ChangeConsumer(stream) => {
                self.with_stream(stream, async |handle| {
                    let info = handle.consumer_info(stream.consumer()).await.ok()?;
                    let mut config = pull::Config::try_from_consumer_config(info.config).ok()?;
                    config.ack_wait = Duration::from_secs(3);
                    config.max_ack_pending = 50;
                    handle.update_consumer(config).await.ok()
                });
            }
            _ => {}
        }
    }

    fn purge(&self, stream: Stream, percent: u64) {
        self.publisher.pause();
        let cut = self.with_stream(stream, async |handle| {
            let state = handle.get_info().await.ok()?.state;
            let held = (state.last_sequence + 1).saturating_sub(state.first_sequence);
            let cut = state.first_sequence + (held * percent).div_ceil(100);
            // Valid whether the purge succeeds or not: a purged message has a row or a gap, and any other message has a
            // row.
            drop(handle.purge().sequence(cut).await);
            Some(cut)
        });
        self.fate(|_, of, sequence, fate| match fate {
            Fate::InStream if of == stream && cut.is_some_and(|cut| sequence < cut) => Fate::Removed,
            other => other,
        });
        self.publisher.resume();
    }

    fn delete_message(&self, stream: Stream, behind: u64) {
        let deleted = self.with_stream(stream, async |handle| {
            let state = handle.get_info().await.ok()?.state;
            let sequence = state.last_sequence.checked_sub(behind)?;
            drop(handle.delete_message(sequence).await);
            Some(sequence)
        });
        self.fate(|_, of, sequence, fate| match fate {
            Fate::InStream if of == stream && Some(sequence) == deleted => Fate::Removed,
            other => other,
        });
    }

    fn recreate(&mut self, stream: Stream, settled: bool) {
        if settled {
            println!("           {}", self.settle());
        }
        self.publisher.pause();
        self.until("the stream is deleted", || {
            run(async {
                let context = context(&self.broker.url()).await?;
                match context.delete_stream(stream.name()).await {
                    Ok(_) => Some(()),
                    // An earlier attempt deleted it although its answer was lost.
                    Err(error) => error.to_string().contains("10059").then_some(()),
                }
            })
        });
        self.create(stream);
        self.broker_copy = None;
        self.fate(|_, of, _, fate| {
            if of == stream {
                without_removed(fate, settled)
            } else {
                fate
            }
        });
        self.wait_for_consumer(stream);
        self.publisher.resume();
        self.catch_up();
    }

    fn step_down(&self, stream: Stream, consumer: bool) {
        let subject = if consumer {
            format!(
                "$JS.API.CONSUMER.LEADER.STEPDOWN.{}.{}",
                stream.name(),
                stream.consumer()
            )
        } else {
            format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", stream.name())
        };
        run(async {
            let client = context(&self.broker.url()).await?.client();
            client.request(subject, "".into()).await.ok()
        });
    }

    /// An interest stream stores nothing until the host has created its consumer again, and drops what was not
    /// acknowledged.
    fn delete_consumer(&self, stream: Stream) {
        let drops = self.setup.needs_consumer(stream);
        if drops {
            self.publisher.pause();
        }
        self.with_stream(stream, async |handle| {
            handle.delete_consumer(stream.consumer()).await.ok()
        });
        if drops {
            self.fate(|_, of, _, fate| match fate {
                Fate::InStream if of == stream => Fate::Removed,
                other => other,
            });
            self.wait_for_consumer(stream);
            self.publisher.resume();
        }
    }

    pub fn publish_bad(&self, action: &Action) {
        if let Action::Malformed { stream, which } = *action {
            let headers = HEADERS[which % HEADERS.len()];
            let id = self.journal.begin(stream, Kind::Row);
            let payload = stream.payload(id);
            let stored = self.broker.raw().and_then(|connection| {
                raw::publish(connection, stream.subject(), headers, payload.as_bytes())
            });
            if let Some(sequence) = stored {
                self.journal.acknowledged(id, sequence);
            }
            return;
        }
        run(async {
            let Some(context) = context(&self.broker.url()).await else {
                return;
            };
            match action {
                Action::Undecodable(count) => {
                    for _ in 0..*count {
                        let bad = |id| format!("bad {id}");
                        self.journal
                            .publish(&context, Stream::Obs, Kind::DeadLetter, bad)
                            .await;
                    }
                }
                Action::Hostile(which) => {
                    let word = HOSTILE[which % HOSTILE.len()];
                    let bad = |id| format!("{word} {id}");
                    self.journal
                        .publish(&context, Stream::Evil, Kind::DeadLetter, bad)
                        .await;
                }
                _ => {}
            }
        });
    }
}
