//! What a projection holds of its plugin: messages in, outcomes out, and everything that can go wrong in between kept
//! from the messages that did nothing wrong. One projection owns a [`Projector`] and calls it from one thread at
//! a time; a call blocks.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer;
use super::bindings::Shape;
use super::config::Limits;
use super::instance::{CallError, Instance, Upset};
use super::isolate::{Isolated, Search, isolate};
use super::loader::Plugin;
use super::pace::Pace;
use lantern_model::batch::{Delivery, Outcome, RejectionClass};
use lantern_model::schema::Manifest;

/// Turns a source's messages into outcomes.
///
/// A panic during a call (a bug of the host) leaves it usable: the instance of that call is gone and the next call makes a
/// new one. What it answered before stands.
pub struct Projector {
    manifest: Arc<Manifest>,
    limits: Arc<Limits>,
    decoder: Decoder,
    pace: Pace,
    memory_peak_bytes: usize,
}

enum Decoder {
    Wasm {
        plugin: Arc<Plugin>,
        shapes: Vec<Shape>,
        instance: Option<Box<Instance>>,
    },
    Native(Box<dyn NativeGuest>),
}

/// A decoder compiled into the host. It exists so that the cost of WebAssembly can be measured.
#[doc(hidden)]
pub trait NativeGuest: Send {
    /// One outcome for each message.
    fn project(&mut self, source: u32, messages: &[Delivery]) -> Vec<Outcome>;
}

/// What became of messages.
#[derive(Debug, Default)]
pub struct Projected {
    /// One for each of the first messages, checked against the description and the limits. At least one, unless
    /// there were no messages or `halted` is set.
    pub outcomes: Vec<Outcome>,
    /// What went wrong on the way, at most one for each call into the plugin. Rejections are in `outcomes` as well.
    pub faults: Vec<Fault>,
    /// Set when no instance could be made, so that nothing was decided about the remaining messages. It is the host's or
    /// the plugin's trouble and no message's; try again later.
    pub halted: Option<String>,
    /// Time by the clock that all of this took.
    pub busy: Duration,
}

/// A call into the plugin that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How it went wrong. [`RejectionClass::Output`] means an answer that could not be read.
    pub class: RejectionClass,
    /// In words, for the log.
    pub reason: String,
    /// Sequence of the first message of the call.
    pub first_sequence: u64,
    /// Messages in the call.
    pub messages: usize,
    /// How many of them were found guilty. None means that the plugin went wrong and then did not: it keeps something
    /// from one call to the next that it should not keep, or the group of messages was too slow together.
    pub rejected: usize,
}

impl Projector {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        let manifest = Arc::clone(plugin.manifest());
        let limits = Arc::clone(plugin.limits());
        let shapes = manifest.sources.iter().map(Shape::from).collect();
        Self {
            manifest,
            limits,
            decoder: Decoder::Wasm {
                plugin,
                shapes,
                instance: None,
            },
            pace: Pace::default(),
            memory_peak_bytes: 0,
        }
    }

    /// The same checks around a decoder compiled into the host.
    #[doc(hidden)]
    pub fn native(manifest: Arc<Manifest>, limits: Limits, guest: Box<dyn NativeGuest>) -> Self {
        Self {
            manifest,
            limits: Arc::new(limits),
            decoder: Decoder::Native(guest),
            pace: Pace::default(),
            memory_peak_bytes: 0,
        }
    }

    /// Decides messages of one source (an index into the manifest's sources), in order and from the first on, until all
    /// are decided or `budget` is used up. Delete markers are skipped; the plugin does not see them. The last call into the plugin may exceed the budget.
    pub fn project(&mut self, source: usize, messages: &[Delivery], budget: Duration) -> Projected {
        let began = Instant::now();
        let mut projected = Projected {
            outcomes: Vec::with_capacity(messages.len()),
            ..Projected::default()
        };
        while projected.outcomes.len() < messages.len() && projected.halted.is_none() {
            let left = budget.saturating_sub(began.elapsed());
            if left.is_zero() && !projected.outcomes.is_empty() {
                break;
            }
            let rest = &messages[projected.outcomes.len()..];
            let marker = rest.iter().position(Delivery::is_delete_marker);
            if marker == Some(0) {
                projected.outcomes.push(Outcome::Skip);
                continue;
            }
            let rest = &rest[..marker.unwrap_or(rest.len())];
            let chunk = &rest[..self.pace.next_call(rest, left)];
            let fresh = !self.has_instance();
            match self.call(source, chunk, false) {
                Ok(outcomes) => {
                    self.pace.went_well();
                    self.take(outcomes, &mut projected.outcomes);
                }
                Err(CallError::NoInstance(words)) => projected.halted = Some(words),
                Err(CallError::Upset(upset)) => {
                    self.pace.went_wrong();
                    let found = match chunk {
                        // The message was alone and the instance had seen nothing else: there is nothing to search.
                        [_] if fresh => Isolated::rejection(&upset),
                        _ => {
                            let (end, done) = (began.checked_add(budget), projected.outcomes.len());
                            isolate(
                                chunk.len(),
                                &mut FreshInstances {
                                    projector: self,
                                    source,
                                    chunk,
                                    end,
                                    done,
                                },
                            )
                        }
                    };
                    self.settle(chunk, upset, found, &mut projected);
                }
            }
        }
        projected.busy = began.elapsed();
        projected
    }

    /// Gives back the memory of the instance. To be called when the source has nothing to say for a while; the next
    /// message costs a tenth of a millisecond more.
    pub fn rest(&mut self) {
        if let Decoder::Wasm { instance, .. } = &mut self.decoder {
            *instance = None;
        }
    }

    /// The most linear memory, in bytes, that an instance has had after a call; none has ever less than it had before.
    pub fn memory_peak_bytes(&self) -> usize {
        self.memory_peak_bytes
    }

    /// Whether the next call goes to an instance that has been called before.
    fn has_instance(&self) -> bool {
        match &self.decoder {
            Decoder::Wasm { instance, .. } => instance.is_some(),
            Decoder::Native(_) => true,
        }
    }

    /// Takes over what the search after a call that went wrong has found.
    fn settle(&self, chunk: &[Delivery], upset: Upset, found: Isolated, projected: &mut Projected) {
        self.take(found.outcomes, &mut projected.outcomes);
        projected.halted = found.no_instance;
        projected.faults.push(Fault {
            class: upset.class,
            reason: upset.words,
            first_sequence: chunk.first().map_or(0, |first| first.sequence),
            messages: chunk.len(),
            rejected: found.rejected,
        });
    }

    fn take(&self, outcomes: Vec<Outcome>, into: &mut Vec<Outcome>) {
        into.extend(
            outcomes
                .into_iter()
                .map(|outcome| answer::check(&self.manifest, &self.limits, outcome)),
        );
    }

    /// One call into the plugin. `fresh` asks for an instance that has seen nothing.
    fn call(&mut self, source: usize, messages: &[Delivery], fresh: bool) -> Result<Vec<Outcome>, CallError> {
        let time = self
            .pace
            .time_for(messages.len(), self.limits.message_time, fresh);
        let number = u32::try_from(source).unwrap_or(u32::MAX);
        let outcomes = match &mut self.decoder {
            Decoder::Native(guest) => self
                .pace
                .measure(messages.len(), || Ok(guest.project(number, messages))),
            Decoder::Wasm {
                plugin,
                shapes,
                instance,
            } => {
                let Some(&shape) = shapes.get(source) else {
                    return Err(CallError::NoInstance(format!(
                        "the plugin has no source number {source}"
                    )));
                };
                let engine = plugin.engine();
                // Taken out, so that whatever happens in the call (a panic, too) it is put back only after a good one.
                let mut called = match instance.take() {
                    Some(instance) if !fresh => instance,
                    _ => Box::new(plugin.instantiate(self.limits.message_time).map_err(|upset| {
                        CallError::NoInstance(format!("no instance can be made: {}", upset.words))
                    })?),
                };
                let outcomes = self.pace.measure(messages.len(), || {
                    called.project(engine, number, shape, messages, time)
                });
                self.memory_peak_bytes = self.memory_peak_bytes.max(called.memory_bytes());
                if outcomes.is_ok() && !called.is_bloated(&self.limits) {
                    *instance = Some(called);
                }
                outcomes
            }
        };
        outcomes
            .and_then(|outcomes| count(outcomes, messages.len()))
            .map_err(CallError::Upset)
    }
}

fn count(outcomes: Vec<Outcome>, messages: usize) -> Result<Vec<Outcome>, Upset> {
    if outcomes.len() == messages {
        Ok(outcomes)
    } else {
        let words = format!("{} outcomes for {messages} messages", outcomes.len());
        Err(Upset {
            class: RejectionClass::Output,
            words,
        })
    }
}

/// A search in which each call has an instance of its own, so that nothing that went wrong before has a part in it.
struct FreshInstances<'a> {
    projector: &'a mut Projector,
    source: usize,
    chunk: &'a [Delivery],
    end: Option<Instant>,
    done: usize,
}

impl Search for FreshInstances<'_> {
    fn call(&mut self, messages: Range<usize>) -> Result<Vec<Outcome>, CallError> {
        self.projector.call(self.source, &self.chunk[messages], true)
    }

    fn has_a_chance(&self, messages: usize) -> bool {
        self.projector
            .pace
            .has_a_chance(messages, self.projector.limits.message_time)
    }

    fn go_on(&self, done: usize) -> bool {
        self.done + done == 0 || self.end.is_none_or(|end| Instant::now() < end)
    }
}
