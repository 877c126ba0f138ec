//! The search for the message that is to blame. A call of many messages went wrong; halves of it are tried with fresh
//! instances until each guilty message stands alone, and all others have their outcomes. Pure: calls are handed in.

use std::ops::Range;

use super::instance::{CallError, Upset};
use lantern_model::batch::{Outcome, Rejection};

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Isolated {
    /// For the first messages, in order; for all of them unless the search was ended early.
    pub outcomes: Vec<Outcome>,
    /// How many of them are rejections that the search found.
    pub rejected: usize,
    /// Set when there was no instance to search with.
    pub no_instance: Option<String>,
}

impl Isolated {
    /// One message, and it is guilty.
    pub fn rejection(upset: &Upset) -> Self {
        let outcomes = vec![Outcome::Reject(Rejection::new(upset.class, &upset.words))];
        Self {
            outcomes,
            rejected: 1,
            no_instance: None,
        }
    }
}

/// How the search goes about its calls.
pub(super) trait Search {
    /// Asks a fresh instance for the outcomes of some of the messages.
    fn call(&mut self, messages: Range<usize>) -> Result<Vec<Outcome>, CallError>;

    /// Whether a call of so many messages has a chance. When not, they are halved without it.
    fn has_a_chance(&self, messages: usize) -> bool;

    /// Whether to go on, when so many messages are done.
    fn go_on(&self, done: usize) -> bool;
}

/// Searches among `messages`, of which a call together has just gone wrong.
pub(super) fn isolate(messages: usize, search: &mut impl Search) -> Isolated {
    let mut found = Isolated::default();
    // The next range is on top. `suspect` is a range that is known, or likely, to hold a guilty message.
    let mut open = vec![Open {
        range: 0..messages,
        suspect: true,
        left: false,
    }];
    while let Some(Open { range, suspect, left }) = open.pop() {
        if !search.go_on(found.outcomes.len()) {
            break;
        }
        let alone = range.len() == 1;
        if !alone && (suspect || !search.has_a_chance(range.len())) {
            halve(&mut open, &range);
            continue;
        }
        match search.call(range.clone()) {
            Ok(outcomes) => {
                found.outcomes.extend(outcomes);
                // The whole was bad and its left half is good, so its right half, which is on top now, is bad.
                if let (true, Some(right)) = (left, open.last_mut()) {
                    right.suspect = true;
                }
            }
            Err(CallError::Upset(Upset { class, words })) if alone => {
                found
                    .outcomes
                    .push(Outcome::Reject(Rejection::new(class, &words)));
                found.rejected += 1;
            }
            Err(CallError::Upset(_)) => halve(&mut open, &range),
            Err(CallError::NoInstance(words)) => {
                found.no_instance = Some(words);
                break;
            }
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

    /// A plugin that goes wrong on some messages.
    struct Fake {
        guilty: Vec<usize>,
        calls: Vec<Range<usize>>,
        calls_max: usize,
        group_max: usize,
    }

    impl Fake {
        fn new(guilty: &[usize]) -> Self {
            Self {
                guilty: guilty.to_vec(),
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
            if self.guilty.iter().any(|guilty| messages.contains(guilty)) {
                Err(CallError::Upset(Upset {
                    class: RejectionClass::Trap,
                    words: "bad".into(),
                }))
            } else {
                Ok(messages.map(|_| Outcome::Skip).collect())
            }
        }

        fn has_a_chance(&self, messages: usize) -> bool {
            messages <= self.group_max
        }

        fn go_on(&self, done: usize) -> bool {
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
    fn check(messages: usize, guilty: &[usize]) -> Fake {
        let mut fake = Fake::new(guilty);
        let found = isolate(messages, &mut fake);
        assert_eq!(found.outcomes.len(), messages);
        assert_eq!(rejected(&found.outcomes), guilty);
        assert_eq!(found.rejected, guilty.len());
        assert_eq!(found.no_instance, None);
        fake
    }

    #[test]
    fn the_guilty_are_found_and_no_one_else() {
        for messages in 1..40 {
            check(messages, &[]);
            check(messages, &(0..messages).collect::<Vec<_>>());
            for guilty in 0..messages {
                check(messages, &[guilty]);
                check(messages, &(guilty..messages).step_by(7).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn one_among_a_thousand_takes_few_calls() {
        for guilty in [0, 1, 511, 512, 700, 1023] {
            let calls = check(1024, &[guilty]).calls.len();
            assert!(calls <= 20, "{calls} calls for message {guilty}");
        }
    }

    #[test]
    fn a_message_alone_is_tried_once_more_before_it_is_blamed() {
        assert_eq!(check(1, &[]).calls, vec![Range { start: 0, end: 1 }]);
    }

    #[test]
    fn a_search_that_is_ended_early_has_decided_the_first_messages() {
        let mut fake = Fake {
            calls_max: 3,
            ..Fake::new(&[0, 9])
        };
        let found = isolate(16, &mut fake);
        assert!(!found.outcomes.is_empty() && found.outcomes.len() < 16);
        assert_eq!(rejected(&found.outcomes), [0]);
    }

    #[test]
    fn groups_without_a_chance_are_not_called() {
        let mut fake = Fake {
            group_max: 2,
            ..Fake::new(&[5])
        };
        assert_eq!(isolate(16, &mut fake).outcomes.len(), 16);
        assert!(fake.calls.iter().all(|call| call.len() <= 2));
    }
}
