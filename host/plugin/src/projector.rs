//! A projection's handle to its plugin: messages in, outcomes out. Failures affect only the messages that caused them.
//! One projection owns a [`Projector`] and calls it from one thread at a time; a call blocks.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer;
use super::bindings::Shape;
use super::call_size::CallSize;
use super::config::Limits;
use super::instance::{CallError, CallFailure, Instance};
use super::interrupt::Interrupt;
use super::isolate::{Isolated, Search, isolate};
use super::loader::Plugin;
use lantern_model::batch::{Delivery, Outcome, RejectionClass};
use lantern_model::schema::Manifest;

/// Turns a source's messages into outcomes.
///
/// A panic during a call (a bug of the host) leaves it usable: the instance of that call is discarded and the next call
/// creates a new one. Earlier answers stay valid.
pub struct Projector {
    manifest: Arc<Manifest>,
    limits: Arc<Limits>,
    decoder: Decoder,
    call_size: CallSize,
    memory_peak_bytes: usize,
    interrupt: Interrupt,
}

enum Decoder {
    Wasm {
        plugin: Arc<Plugin>,
        shapes: Vec<Shape>,
        instance: Option<Box<Instance>>,
    },
    Native(Box<dyn NativeGuest>),
}

/// A decoder compiled into the host, for measuring the cost of WebAssembly.
#[doc(hidden)]
pub trait NativeGuest: Send {
    /// One outcome for each message.
    fn project(&mut self, source: u32, messages: &[Delivery]) -> Vec<Outcome>;
}

/// The result of projecting messages.
#[derive(Debug, Default)]
pub struct Projected {
    /// One for each of the first messages, checked against the description and the limits. At least one, unless there
    /// were no messages, `halted` is set, or the projector was interrupted.
    pub outcomes: Vec<Outcome>,
    /// Failed calls, at most one per call into the plugin. Their rejections are also in `outcomes`.
    pub faults: Vec<Fault>,
    /// Set when no instance could be created, so that the remaining messages are undecided. The host or the plugin is
    /// at fault, not a message; retry later.
    pub halted: Option<String>,
    /// Elapsed time of the complete call.
    pub busy: Duration,
}

/// A failed call into the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of failure. [`RejectionClass::Output`] means an unreadable answer.
    pub class: RejectionClass,
    /// A description for the log.
    pub reason: String,
    /// Sequence of the first message of the call.
    pub first_sequence: u64,
    /// Messages in the call.
    pub messages: usize,
    /// How many of them were rejected. Zero means that the failure did not repeat: the plugin keeps state between calls
    /// that it should not keep, or the group of messages was too slow together.
    pub rejected: usize,
}

impl Plugin {
    /// A new projector with its own instances.
    pub fn projector(self: &Arc<Self>) -> Projector {
        Projector::new(Arc::clone(self))
    }
}

impl Projector {
    fn new(plugin: Arc<Plugin>) -> Self {
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
            call_size: CallSize::default(),
            memory_peak_bytes: 0,
            interrupt: Interrupt::default(),
        }
    }

    /// The same checks around a decoder compiled into the host.
    #[doc(hidden)]
    pub fn native(manifest: Arc<Manifest>, limits: Limits, guest: Box<dyn NativeGuest>) -> Self {
        Self {
            manifest,
            limits: Arc::new(limits),
            decoder: Decoder::Native(guest),
            call_size: CallSize::default(),
            memory_peak_bytes: 0,
            interrupt: Interrupt::default(),
        }
    }

    /// Ends the calls of this projector early, from another thread. A native decoder is not interrupted.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Projects messages of one source (an index into the manifest's sources), in order, until all are decided or
    /// `budget` is used up. Delete markers are skipped; the plugin does not see them. The last call into the plugin may
    /// exceed the budget. Returns the outcomes so far when the projector is interrupted.
    pub fn project(&mut self, source: usize, messages: &[Delivery], budget: Duration) -> Projected {
        let began = Instant::now();
        let mut projected = Projected {
            outcomes: Vec::with_capacity(messages.len()),
            ..Projected::default()
        };
        while projected.outcomes.len() < messages.len()
            && projected.halted.is_none()
            && !self.interrupt.is_set()
        {
            let left = budget.saturating_sub(began.elapsed());
            if left.is_zero() && !projected.outcomes.is_empty() {
                break;
            }
            let rest = &messages[projected.outcomes.len()..];
            let chunk = &rest[..self.call_size.next_call(rest, left)];
            let marker = chunk.iter().position(Delivery::is_delete_marker);
            if marker == Some(0) {
                projected.outcomes.push(Outcome::Skip);
                continue;
            }
            let chunk = &chunk[..marker.unwrap_or(chunk.len())];
            let fresh = !self.has_instance();
            match self.call(source, chunk, false) {
                Ok(outcomes) => {
                    self.call_size.grow();
                    self.take(outcomes, &mut projected.outcomes);
                }
                Err(CallError::NoInstance(reason)) => projected.halted = Some(reason),
                Err(CallError::Interrupted) => break,
                Err(CallError::Failed(failure)) => {
                    self.call_size.shrink();
                    let found = match chunk {
                        // The message was alone and the instance was new, so there is nothing to search.
                        [_] if fresh => Isolated::rejection(&failure),
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
                    self.settle(chunk, failure, found, &mut projected);
                }
            }
        }
        projected.busy = began.elapsed();
        projected
    }

    /// Releases the instance and its memory. Call it when the source is idle; the next message costs a tenth of a
    /// millisecond more.
    pub fn release_instance(&mut self) {
        if let Decoder::Wasm { instance, .. } = &mut self.decoder {
            *instance = None;
        }
    }

    /// Peak linear memory of an instance after a call, in bytes; the memory of an instance never shrinks.
    pub fn memory_peak_bytes(&self) -> usize {
        self.memory_peak_bytes
    }

    /// Whether the next call uses an instance that was called before.
    fn has_instance(&self) -> bool {
        match &self.decoder {
            Decoder::Wasm { instance, .. } => instance.is_some(),
            Decoder::Native(_) => true,
        }
    }

    /// Records the result of the search after a failed call.
    fn settle(&self, chunk: &[Delivery], failure: CallFailure, found: Isolated, projected: &mut Projected) {
        self.take(found.outcomes, &mut projected.outcomes);
        projected.halted = found.no_instance;
        projected.faults.push(Fault {
            class: failure.class,
            reason: failure.reason,
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

    /// One call into the plugin. `fresh` requires a new instance.
    fn call(&mut self, source: usize, messages: &[Delivery], fresh: bool) -> Result<Vec<Outcome>, CallError> {
        let time = self
            .call_size
            .time_for(messages.len(), self.limits.message_time, fresh);
        let number = u32::try_from(source).unwrap_or(u32::MAX);
        let outcomes = match &mut self.decoder {
            Decoder::Native(guest) => self
                .call_size
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
                // Taken out, so that it is only put back after a successful call, even if the call panics.
                let mut called = match instance.take() {
                    Some(instance) if !fresh => instance,
                    _ => {
                        let created = plugin.instantiate(&self.interrupt, self.limits.message_time);
                        Box::new(created.map_err(|failure| no_instance(&failure, &self.interrupt))?)
                    }
                };
                let outcomes = self.call_size.measure(messages.len(), || {
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
            .map_err(|failure| match self.interrupt.is_set() {
                true => CallError::Interrupted,
                false => CallError::Failed(failure),
            })
    }
}

fn no_instance(failure: &CallFailure, interrupt: &Interrupt) -> CallError {
    if interrupt.is_set() {
        CallError::Interrupted
    } else {
        CallError::NoInstance(format!("cannot create an instance: {}", failure.reason))
    }
}

fn count(outcomes: Vec<Outcome>, messages: usize) -> Result<Vec<Outcome>, CallFailure> {
    if outcomes.len() == messages {
        Ok(outcomes)
    } else {
        let reason = format!("{} outcomes for {messages} messages", outcomes.len());
        Err(CallFailure {
            class: RejectionClass::Output,
            reason,
        })
    }
}

/// A search in which each call has a new instance, so that earlier failures have no influence.
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

    fn fits_time(&self, messages: usize) -> bool {
        self.projector
            .call_size
            .fits_time(messages, self.projector.limits.message_time)
    }

    fn may_continue(&self, done: usize) -> bool {
        self.done + done == 0 || self.end.is_none_or(|end| Instant::now() < end)
    }
}
