//! Selects the faults and their order. Only the seed determines them; events of the run do not.

use super::setup::Setup;
use super::streams::Stream;

/// One fault, or a rest between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait this many milliseconds.
    Rest(u64),
    /// Stop the host, with SIGKILL or gracefully, perform an action while it is down, and start it again.
    RestartHost {
        kill: bool,
        down_ms: u64,
        meanwhile: Option<Box<Action>>,
    },
    /// SIGSTOP, then SIGCONT after this many milliseconds.
    FreezeHost(u64),
    /// Stop a server of the broker, with SIGKILL or gracefully, and start it again after this many milliseconds.
    RestartBroker {
        server: usize,
        kill: bool,
        down_ms: u64,
    },
    FreezeBroker {
        server: usize,
        ms: u64,
    },
    /// Make the leader of the stream, or of its consumer, step down.
    StepDown {
        stream: Stream,
        consumer: bool,
    },
    /// Create the stream again, which changes nothing, then restart all servers one after another.
    RollingRestart(Stream),
    /// Fill the host's disk to the last byte for this many milliseconds.
    FillDisk(u64),
    /// Copy the database.
    CopyDatabase,
    /// Stop the host and start it with the copy.
    RestoreDatabase,
    /// Delete the database, either under the running host or while it is stopped.
    DeleteDatabase {
        running: bool,
    },
    /// Purge the stream below this percentage of its messages.
    Purge {
        stream: Stream,
        percent: u64,
    },
    /// Delete the message at this distance from the last one.
    DeleteMessage {
        stream: Stream,
        behind: u64,
    },
    /// Delete the stream and create it again; `settled` waits until everything is read before.
    RecreateStream {
        stream: Stream,
        settled: bool,
    },
    /// Copy the broker's store.
    CopyBroker,
    /// Start the broker with the copy; `settled` waits until everything is read before.
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
    /// Pause the plugin, and resume it after this many milliseconds.
    Pause {
        plugin: &'static str,
        ms: u64,
    },
    /// Publish this many messages that are not JSON.
    Undecodable(u64),
    /// Publish a message with header bytes that no client library sends; the number selects which.
    Malformed {
        stream: Stream,
        which: usize,
    },
    /// Publish a message on which the plugin `misbehaving` breaks its contract; the number selects how.
    Hostile(usize),
    /// Wait until everything is read, and compare the database with the journal.
    Settle,
}

/// Number of faults between two comparisons.
const SETTLE_EVERY: u64 = 24;

/// An endless schedule.
pub struct Plan {
    random: Random,
    setup: Setup,
    full_disk: bool,
    number: u64,
    resting: bool,
    database_copied: bool,
    broker_copied: bool,
}

impl Plan {
    pub fn new(seed: u64, setup: Setup, full_disk: bool) -> Self {
        Self {
            random: Random(seed),
            setup,
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
        let cluster = self.setup == Setup::Cluster;
        match random.below(40) {
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
                server: random.below(3) as usize,
                kill: random.below(3) > 0,
                down_ms: random.below(1_500),
            },
            9 => Action::FreezeBroker {
                server: random.below(3) as usize,
                ms: random.between(200, 4_000),
            },
            19 if cluster => Action::RollingRestart(stream),
            20 | 36..=39 if cluster => Action::StepDown {
                stream,
                consumer: random.below(2) == 0,
            },
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
                // The copy would bring back a deleted stream, with messages of another history.
                self.broker_copied = false;
                Action::RecreateStream {
                    stream,
                    settled: random.below(2) == 0,
                }
            }
            19 if self.setup.may_revert_broker() && self.broker_copied => {
                // An older copy of the database would need to contain two histories.
                self.database_copied = false;
                Action::RevertBroker {
                    settled: random.below(2) == 0,
                }
            }
            19..=20 if self.setup.may_revert_broker() => {
                self.broker_copied = true;
                Action::CopyBroker
            }
            19..=22 => Action::DeleteConsumer(stream),
            // The host does not replace a changed consumer of an interest stream: that would lose messages.
            23 if !self.setup.needs_consumer(stream) => Action::ChangeConsumer(stream),
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
            33 | 36..=37 => Action::Malformed {
                stream,
                which: random.below(1_000) as usize,
            },
            _ => Action::Hostile(random.below(1_000) as usize),
        }
    }

    /// Selects an action for the time while the host is down.
    fn meanwhile(&mut self, stream: Stream) -> Option<Action> {
        let random = &mut self.random;
        Some(match random.below(5) {
            0 => Action::RestartBroker {
                server: random.below(3) as usize,
                kill: true,
                down_ms: 0,
            },
            1 => Action::Purge {
                stream,
                percent: random.between(1, 100),
            },
            // An interest stream drops messages until the host has created the consumer again.
            2 if !self.setup.needs_consumer(stream) => Action::DeleteConsumer(stream),
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
fn a_schedule_depends_only_on_its_seed() {
    for setup in [Setup::Single, Setup::Retention, Setup::Cluster] {
        let schedule = |seed| Plan::new(seed, setup, true).take(500).collect::<Vec<_>>();
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }
}

#[test]
fn copies_are_made_before_they_are_restored() {
    for seed in 0..50 {
        let (mut database, mut broker) = (false, false);
        for action in Plan::new(seed, Setup::Single, false).take(1_000) {
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
