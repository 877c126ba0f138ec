//! Which faults, in which order. A seed determines them; nothing that happens in the run does.

use super::streams::Stream;

/// One fault, or a rest between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait this many milliseconds.
    Rest(u64),
    /// End the host, by SIGKILL or in order, do something while it is down, and start it again.
    RestartHost {
        kill: bool,
        down_ms: u64,
        meanwhile: Option<Box<Action>>,
    },
    /// SIGSTOP, and SIGCONT after so long.
    FreezeHost(u64),
    /// End the broker, by SIGKILL or in order, and start it again after so long.
    RestartBroker {
        kill: bool,
        down_ms: u64,
    },
    FreezeBroker(u64),
    /// Leave no byte free on the host's disk for so long.
    FillDisk(u64),
    /// Keep a copy of the database.
    CopyDatabase,
    /// End the host and start it with the copy.
    RestoreDatabase,
    /// Delete the database, under the running host or while it is down.
    DeleteDatabase {
        running: bool,
    },
    /// Purge what is below this percentage of the stream.
    Purge {
        stream: Stream,
        percent: u64,
    },
    /// Delete the message that is so far behind the last one.
    DeleteMessage {
        stream: Stream,
        behind: u64,
    },
    /// Delete the stream and create it again; everything is read before, or not.
    RecreateStream {
        stream: Stream,
        settled: bool,
    },
    /// Keep a copy of the broker's store.
    CopyBroker,
    /// Start the broker with the copy; everything is read before, or not.
    RevertBroker {
        settled: bool,
    },
    DeleteConsumer(Stream),
    ChangeConsumer(Stream),
    /// Activate the version of the plugin `evolving` with this letter.
    Swap(char),
    Rollback,
    Rebuild {
        plugin: &'static str,
        carry_over: bool,
    },
    /// Pause the plugin, and resume it after so long.
    Pause {
        plugin: &'static str,
        ms: u64,
    },
    /// So many messages that are not JSON.
    Undecodable(u64),
    /// A message with header bytes that no client library sends; the number selects which.
    Malformed(usize),
    /// A message on which the plugin `misbehaving` breaks its contract; the number selects how.
    Hostile(usize),
    /// Wait until everything is read, and hold the database against the journal.
    Settle,
}

/// Faults between two looks at the whole.
const SETTLE_EVERY: u64 = 24;

/// An endless schedule.
pub struct Plan {
    random: Random,
    full_disk: bool,
    number: u64,
    resting: bool,
    database_copied: bool,
    broker_copied: bool,
}

impl Plan {
    pub fn new(seed: u64, full_disk: bool) -> Self {
        Self {
            random: Random(seed),
            full_disk,
            number: 0,
            resting: false,
            database_copied: false,
            broker_copied: false,
        }
    }

    fn fault(&mut self) -> Action {
        let random = &mut self.random;
        let stream = Stream::ALL[random.below(3) as usize];
        let plugin = ["obs-events", "evolving", "misbehaving"][random.below(3) as usize];
        match random.below(36) {
            0..=4 => Action::RestartHost {
                kill: random.below(4) > 0,
                down_ms: random.below(800),
                meanwhile: match random.below(2) {
                    0 => None,
                    _ => self.meanwhile(stream).map(Box::new),
                },
            },
            5 => Action::FreezeHost(random.between(200, 3_000)),
            6..=8 => Action::RestartBroker {
                kill: random.below(3) > 0,
                down_ms: random.below(1_500),
            },
            9 => Action::FreezeBroker(random.between(200, 4_000)),
            10..=11 if self.full_disk => Action::FillDisk(random.between(300, 2_500)),
            10..=12 => {
                self.database_copied = true;
                Action::CopyDatabase
            }
            13 if self.database_copied => Action::RestoreDatabase,
            13..=14 => Action::DeleteDatabase {
                running: random.below(2) == 0,
            },
            15..=16 => Action::Purge {
                stream,
                percent: random.between(1, 100),
            },
            17 => Action::DeleteMessage {
                stream,
                behind: random.below(300),
            },
            18 => {
                // The copy would bring back a stream that was deleted, with messages that are of another history.
                self.broker_copied = false;
                Action::RecreateStream {
                    stream,
                    settled: random.below(2) == 0,
                }
            }
            19 if self.broker_copied => {
                // A copy of the database from before would have to know two histories.
                self.database_copied = false;
                Action::RevertBroker {
                    settled: random.below(2) == 0,
                }
            }
            19..=20 => {
                self.broker_copied = true;
                Action::CopyBroker
            }
            21..=22 => Action::DeleteConsumer(stream),
            23 => Action::ChangeConsumer(stream),
            24..=26 => Action::Swap(['a', 'd', 'e', 'g', 'i'][random.below(5) as usize]),
            27 => Action::Rollback,
            28..=29 => Action::Rebuild {
                plugin,
                carry_over: random.below(3) == 0,
            },
            30 => Action::Pause {
                plugin,
                ms: random.between(100, 1_500),
            },
            31..=32 => Action::Undecodable(random.between(1, 20)),
            33 => Action::Malformed(random.below(1_000) as usize),
            _ => Action::Hostile(random.below(1_000) as usize),
        }
    }

    /// What can happen while the host is down.
    fn meanwhile(&mut self, stream: Stream) -> Option<Action> {
        let random = &mut self.random;
        Some(match random.below(5) {
            0 => Action::RestartBroker {
                kill: true,
                down_ms: 0,
            },
            1 => Action::Purge {
                stream,
                percent: random.between(1, 100),
            },
            2 => Action::DeleteConsumer(stream),
            3 => Action::Undecodable(random.between(1, 5)),
            _ => return None,
        })
    }
}

impl Iterator for Plan {
    type Item = Action;

    fn next(&mut self) -> Option<Action> {
        self.resting = !self.resting;
        if self.resting {
            return Some(Action::Rest(self.random.between(50, 900)));
        }
        self.number += 1;
        Some(if self.number.is_multiple_of(SETTLE_EVERY) {
            Action::Settle
        } else {
            self.fault()
        })
    }
}

/// SplitMix64: every seed gives a good sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again_and_another_seed_another() {
    let schedule = |seed| Plan::new(seed, true).take(500).collect::<Vec<_>>();
    assert_eq!(schedule(7), schedule(7));
    assert_ne!(schedule(7), schedule(8));
}

#[test]
fn copies_are_made_before_they_are_restored() {
    for seed in 0..50 {
        let (mut database, mut broker) = (false, false);
        for action in Plan::new(seed, false).take(1_000) {
            match action {
                Action::CopyDatabase => database = true,
                Action::CopyBroker => broker = true,
                Action::RestoreDatabase => assert!(database, "seed {seed}"),
                Action::RevertBroker { .. } => {
                    assert!(broker, "seed {seed}");
                    database = false;
                }
                Action::RecreateStream { .. } => broker = false,
                _ => {}
            }
        }
    }
}
