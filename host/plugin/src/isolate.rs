//! The search for the message that makes a call fail. After a call of several messages failed, halves of it are tried
//! with new instances until each bad message is isolated and all others have their outcomes. Pure: the caller provides
//! the calls.

use std::ops::Range;

use super::instance::{CallError, CallFailure};
use lantern_model::batch::{Outcome, Rejection};

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Isolated {
    /// Outcomes of the first messages, in order; of all messages unless the search ended early.
    pub outcomes: Vec<Outcome>,
    /// Number of rejections that the search found.
    pub rejected: usize,
    /// Set when no instance was available.
    pub no_instance: Option<String>,
}

impl Isolated {
    /// The result for a single bad message.
    pub fn rejection(failure: &CallFailure) -> Self {
        let outcomes = vec![Outcome::Reject(Rejection::new(failure.class, &failure.reason))];
        Self {
            outcomes,
            rejected: 1,
            no_instance: None,
        }
    }
}

/// The calls of a search.
pub(super) trait Search {
    /// Calls a new instance with some of the messages.
    fn call(&mut self, messages: Range<usize>) -> Result<Vec<Outcome>, CallError>;

    /// Whether a call of so many messages can complete in time. Otherwise they are halved without a call.
    fn fits_time(&self, messages: usize) -> bool;

    /// Whether to continue after so many decided messages.
    fn may_continue(&self, done: usize) -> bool;
}

/// Searches `messages` whose joint call just failed.
pub(super) fn isolate(messages: usize, search: &mut impl Search) -> Isolated {
    let mut found = Isolated::default();
    // The next range is last. `suspect` marks a range that certainly or probably contains a bad message.
    let mut open = vec![Open {
        range: 0..messages,
        suspect: true,
        left: false,
    }];
    while let Some(Open { range, suspect, left }) = open.pop() {
        if !search.may_continue(found.outcomes.len()) {
            break;
        }
        let alone = range.len() == 1;
        if !alone && (suspect || !search.fits_time(range.len())) {
            halve(&mut open, &range);
            continue;
        }
        match search.call(range.clone()) {
            Ok(outcomes) => {
                found.outcomes.extend(outcomes);
                // The whole failed and its left half succeeded, so its right half, now on top, is bad.
                if let (true, Some(right)) = (left, open.last_mut()) {
                    right.suspect = true;
                }
            }
            Err(CallError::Failed(CallFailure { class, reason })) if alone => {
                found
                    .outcomes
                    .push(Outcome::Reject(Rejection::new(class, &reason)));
                found.rejected += 1;
            }
            Err(CallError::Failed(_)) => halve(&mut open, &range),
            Err(CallError::NoInstance(reason)) => {
                found.no_instance = Some(reason);
                break;
            }
            Err(CallError::Interrupted) => break,
        }
    }
    found
}

struct Open {
    range: Range<usize>,
    suspect: bool,
    left: bool,
}

fn halve(open: &mut Vec<Open>, range: &Range<usize>) {
    let middle = range.start + range.len() / 2;
    open.push(Open {
        range: middle..range.end,
        suspect: false,
        left: false,
    });
    open.push(Open {
        range: range.start..middle,
        suspect: false,
        left: true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::batch::RejectionClass;

    /// A plugin that fails on some messages.
    struct Fake {
        bad: Vec<usize>,
        calls: Vec<Range<usize>>,
        calls_max: usize,
        group_max: usize,
    }

    impl Fake {
        fn new(bad: &[usize]) -> Self {
            Self {
                bad: bad.to_vec(),
                calls: Vec::new(),
                calls_max: usize::MAX,
                group_max: usize::MAX,
            }
        }
    }

    impl Search for Fake {
        fn call(&mut self, messages: Range<usize>) -> Result<Vec<Outcome>, CallError> {
            assert!(!messages.is_empty());
            self.calls.push(messages.clone());
            if self.bad.iter().any(|bad| messages.contains(bad)) {
                Err(CallError::Failed(CallFailure {
                    class: RejectionClass::Trap,
                    reason: "trap".into(),
                }))
            } else {
                Ok(messages.map(|_| Outcome::Skip).collect())
            }
        }

        fn fits_time(&self, messages: usize) -> bool {
            messages <= self.group_max
        }

        fn may_continue(&self, done: usize) -> bool {
            done == 0 || self.calls.len() < self.calls_max
        }
    }

    fn rejected(outcomes: &[Outcome]) -> Vec<usize> {
        outcomes
            .iter()
            .enumerate()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Reject(_)))
            .map(|(index, _)| index)
            .collect()
    }

    #[track_caller]
    fn check(messages: usize, bad: &[usize]) -> Fake {
        let mut fake = Fake::new(bad);
        let found = isolate(messages, &mut fake);
        assert_eq!(found.outcomes.len(), messages);
        assert_eq!(rejected(&found.outcomes), bad);
        assert_eq!(found.rejected, bad.len());
        assert_eq!(found.no_instance, None);
        fake
    }

    #[test]
    fn exactly_the_bad_messages_are_found() {
        for messages in 1..40 {
            check(messages, &[]);
            check(messages, &(0..messages).collect::<Vec<_>>());
            for bad in 0..messages {
                check(messages, &[bad]);
                check(messages, &(bad..messages).step_by(7).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_bad_message_in_a_thousand_takes_few_calls() {
        for bad in [0, 1, 511, 512, 700, 1023] {
            let calls = check(1024, &[bad]).calls.len();
            assert!(calls <= 20, "{calls} calls for message {bad}");
        }
    }

    #[test]
    fn a_single_message_is_retried_before_it_is_rejected() {
        assert_eq!(check(1, &[]).calls, vec![Range { start: 0, end: 1 }]);
    }

    #[test]
    fn a_search_that_ends_early_has_decided_the_first_messages() {
        let mut fake = Fake {
            calls_max: 3,
            ..Fake::new(&[0, 9])
        };
        let found = isolate(16, &mut fake);
        assert!(!found.outcomes.is_empty() && found.outcomes.len() < 16);
        assert_eq!(rejected(&found.outcomes), [0]);
    }

    #[test]
    fn groups_that_cannot_complete_are_not_called() {
        let mut fake = Fake {
            group_max: 2,
            ..Fake::new(&[5])
        };
        assert_eq!(isolate(16, &mut fake).outcomes.len(), 16);
        assert!(fake.calls.iter().all(|call| call.len() <= 2));
    }
}
