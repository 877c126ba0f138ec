//! A table of histories with the expected conclusions.

use super::*;
use lantern_store::{Counts, Mark, OriginId};

const SAME: i64 = 100;
const MOVED: i64 = 101;

/// A source that has read 1 to 60, with anchors at 1, 30 and 60. The message at sequence n has the time 10 n.
fn known() -> Attached {
    let anchors: Vec<Anchor> = [60, 30, 1].map(anchor).to_vec();
    Attached {
        origin: OriginId(1),
        epoch: 1,
        stream: Some("S".to_owned()),
        stream_created_ns: Some(SAME),
        checkpoint: Mark {
            sequence: 60,
            published_ns: 600,
            payload_sha256: Some([60; 32]),
        },
        anchors,
        question: None,
        counts: Counts::default(),
        dead_letters: 0,
    }
}

fn anchor(sequence: u64) -> Anchor {
    let [.., low] = sequence.to_be_bytes();
    Anchor {
        sequence,
        published_ns: i64::try_from(sequence).unwrap() * 10,
        payload_sha256: [low; 32],
    }
}

fn stored(published_ns: i64, payload_sha256: [u8; 32]) -> Fingerprint {
    Fingerprint {
        published_ns,
        payload_sha256,
    }
}

/// The message at a sequence.
#[derive(Clone, Copy)]
enum At {
    Equal(u64),
    Other(u64),
    Gone(u64),
}

fn history(created_ns: i64, sequences: (u64, u64), found: &[At]) -> History {
    History {
        stream: "S".to_owned(),
        created_ns,
        begins_at: 1,
        first_sequence: sequences.0,
        last_sequence: sequences.1,
        first_time_ns: i64::try_from(sequences.0).unwrap() * 10,
        is_mirror: false,
        found: found
            .iter()
            .map(|at| match *at {
                At::Equal(sequence) => {
                    let anchor = anchor(sequence);
                    (sequence, Some(stored(anchor.published_ns, anchor.payload_sha256)))
                }
                At::Other(sequence) => (sequence, Some(stored(9_999, [0; 32]))),
                At::Gone(sequence) => (sequence, None),
            })
            .collect(),
    }
}

/// Description; creation time; first and last sequence; messages at the anchors; expected conclusion.
type Row<'a> = (&'a str, i64, (u64, u64), &'a [At], Expected);

#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Continue,
    /// Continue, and store the new creation time.
    Recognise,
    Begin,
    AfterTime,
    Ask,
}

#[track_caller]
fn check(what: &str, attached: &Attached, history: &History, expected: &Expected) {
    let resume = resume(Some(attached), history);
    let found = match &resume {
        Resume::Continue { changed: false } => Expected::Continue,
        Resume::Continue { changed: true } => Expected::Recognise,
        Resume::Begin { after: 0, .. } => Expected::Begin,
        Resume::BeginAfterTime { time_ns: 600, .. } => Expected::AfterTime,
        Resume::Ask { .. } => Expected::Ask,
        other => panic!("{what}: {other:?}"),
    };
    assert_eq!(found, *expected, "{what}: {resume:?}");
}

/// What happened to the stream, when it was created, its sequences, the anchors, and the decision.
const HISTORIES: [Row<'_>; 18] = [
    ("unchanged", SAME, (1, 60), &[At::Equal(60)], Expected::Continue),
    ("grown", SAME, (1, 90), &[At::Equal(60)], Expected::Continue),
    (
        "created moved",
        MOVED,
        (1, 60),
        &[At::Equal(60)],
        Expected::Recognise,
    ),
    (
        "created moved, and the newest message is deleted",
        MOVED,
        (1, 90),
        &[At::Gone(60), At::Equal(30)],
        Expected::Recognise,
    ),
    (
        "the newest message is deleted",
        SAME,
        (1, 90),
        &[At::Gone(60), At::Gone(30), At::Gone(1)],
        Expected::Continue,
    ),
    (
        "trimmed past the checkpoint",
        SAME,
        (80, 90),
        &[],
        Expected::Continue,
    ),
    ("purged", SAME, (61, 60), &[], Expected::Continue),
    (
        "created moved and trimmed past the checkpoint",
        MOVED,
        (80, 90),
        &[],
        Expected::Recognise,
    ),
    (
        "created moved and purged",
        MOVED,
        (61, 60),
        &[],
        Expected::Recognise,
    ),
    (
        "went back and grew again",
        SAME,
        (1, 90),
        &[At::Other(60), At::Equal(30)],
        Expected::AfterTime,
    ),
    (
        "went back, grew again, created moved",
        MOVED,
        (1, 90),
        &[At::Other(60), At::Equal(30)],
        Expected::AfterTime,
    ),
    ("went back", SAME, (1, 40), &[At::Equal(30)], Expected::AfterTime),
    (
        "went back and created moved",
        MOVED,
        (1, 40),
        &[At::Equal(30)],
        Expected::AfterTime,
    ),
    (
        "went back behind all anchors but by creation time the same",
        SAME,
        (1, 40),
        &[At::Gone(30)],
        Expected::AfterTime,
    ),
    (
        "another message everywhere, created at the same time",
        SAME,
        (1, 90),
        &[At::Other(60), At::Other(30), At::Other(1)],
        Expected::AfterTime,
    ),
    (
        "another message everywhere",
        MOVED,
        (1, 90),
        &[At::Other(60), At::Other(30), At::Other(1)],
        Expected::Begin,
    ),
    (
        "created moved, and every anchor is deleted",
        MOVED,
        (2, 90),
        &[At::Gone(60), At::Gone(30)],
        Expected::Ask,
    ),
    (
        "shorter, created moved, and every anchor is deleted",
        MOVED,
        (2, 40),
        &[At::Gone(30)],
        Expected::Ask,
    ),
];

#[test]
fn an_equal_anchor_outranks_the_creation_time_and_without_evidence_an_operator_decides() {
    for (what, created, sequences, found, expected) in HISTORIES {
        check(what, &known(), &history(created, sequences, found), &expected);
    }
    assert!(matches!(
        resume(None, &history(1, (1, 9), &[])),
        Resume::Begin { after: 0, .. }
    ));
}

#[test]
fn a_recreated_stream_is_recognised_by_time_without_anchors() {
    let young = |sequences| History {
        first_time_ns: 601,
        ..history(MOVED, sequences, &[])
    };
    check("shorter", &known(), &young((1, 20)), &Expected::Begin);
    check(
        "longer, with deleted messages",
        &known(),
        &young((2, 90)),
        &Expected::Begin,
    );
    let empty = History {
        first_time_ns: 0,
        ..history(MOVED, (0, 0), &[])
    };
    check("empty", &known(), &empty, &Expected::Begin);
}

#[test]
fn a_recreated_stream_may_begin_after_the_checkpoint() {
    let trimmed = history(MOVED, (61, 90), &[]);
    check("trimmed", &known(), &trimmed, &Expected::Recognise);
    let later = History {
        begins_at: 61,
        ..trimmed
    };
    for attached in [Some(&known()), None] {
        let begun = resume(attached, &later);
        assert!(matches!(begun, Resume::Begin { after: 60, .. }), "{begun:?}");
    }
}

#[test]
fn a_stream_with_older_messages_after_the_checkpoint_was_recreated() {
    // A broker that does not report with which sequence a stream began.
    let begins_late = |first_time_ns| History {
        first_time_ns,
        ..history(MOVED, (80, 90), &[])
    };
    check("older", &known(), &begins_late(599), &Expected::Begin);
    check("newer", &known(), &begins_late(600), &Expected::Recognise);
    // Equal creation times: the clock of the broker was set back.
    let same = History {
        created_ns: SAME,
        ..begins_late(599)
    };
    check("the same stream", &known(), &same, &Expected::Continue);
}

#[test]
fn another_stream_is_recognised_by_an_anchor_and_begins_a_new_epoch_without_one() {
    let named = |history: History, is_mirror| History {
        stream: "M".to_owned(),
        is_mirror,
        ..history
    };
    let mirror = named(history(MOVED, (1, 60), &[At::Equal(60)]), true);
    check("a mirror", &known(), &mirror, &Expected::Recognise);
    let promoted = named(history(MOVED, (1, 90), &[At::Equal(60)]), false);
    check("a promoted mirror", &known(), &promoted, &Expected::Recognise);
    let behind = named(history(MOVED, (1, 40), &[At::Equal(30)]), true);
    check("a mirror that lags", &known(), &behind, &Expected::AfterTime);
    let other = named(history(MOVED, (1, 40), &[At::Other(30), At::Other(1)]), false);
    check("another stream", &known(), &other, &Expected::Begin);
    let nothing = named(history(MOVED, (2, 40), &[At::Gone(30)]), false);
    check(
        "another stream without the sequences",
        &known(),
        &nothing,
        &Expected::Begin,
    );
    let unknown = named(history(MOVED, (2, 40), &[At::Gone(30)]), true);
    check(
        "a mirror without the sequences",
        &known(),
        &unknown,
        &Expected::Ask,
    );
}

#[test]
fn a_database_of_an_earlier_version_compares_by_its_checkpoint() {
    let old = Attached {
        anchors: vec![anchor(60)],
        ..known()
    };
    let moved = |found: &[At]| history(MOVED, (1, 90), found);
    check("equal", &old, &moved(&[At::Equal(60)]), &Expected::Recognise);
    check("different", &old, &moved(&[At::Other(60)]), &Expected::Begin);
    check("deleted", &old, &moved(&[At::Gone(60)]), &Expected::Ask);
    // At the end of a gap, an earlier version stored no anchor.
    let gap = Attached {
        anchors: Vec::new(),
        checkpoint: Mark {
            payload_sha256: None,
            ..known().checkpoint
        },
        ..known()
    };
    check("a gap", &gap, &history(SAME, (1, 90), &[]), &Expected::Continue);
    check(
        "a gap, created moved",
        &gap,
        &history(MOVED, (1, 90), &[]),
        &Expected::Ask,
    );
}

#[test]
fn without_read_messages_no_message_is_read_twice() {
    let fresh = |epoch, sequence| Attached {
        epoch,
        anchors: Vec::new(),
        checkpoint: Mark {
            sequence,
            ..Mark::BEGINNING
        },
        ..known()
    };
    let moved = history(MOVED, (1, 90), &[]);
    check("at the beginning", &fresh(1, 0), &moved, &Expected::Recognise);
    check("behind a gap", &fresh(1, 5), &moved, &Expected::Begin);
    // The second epoch begins after messages that the first one read.
    check("in a later epoch", &fresh(2, 5), &moved, &Expected::Ask);
    check(
        "shorter",
        &fresh(1, 100),
        &history(SAME, (1, 90), &[]),
        &Expected::Begin,
    );
}

#[test]
fn an_epoch_that_begins_inside_a_history_keeps_the_common_messages() {
    let known = known();
    let reverted = history(SAME, (1, 90), &[At::Other(60), At::Equal(30)]);
    let shared: Vec<u64> = reverted
        .shared(&known.anchors)
        .iter()
        .map(|anchor| anchor.sequence)
        .collect();
    assert_eq!(shared, [30, 1]);
    let other = history(MOVED, (1, 90), &[At::Other(60), At::Other(30), At::Other(1)]);
    assert_eq!(other.shared(&known.anchors), []);
}

#[test]
fn an_operator_decides_without_evidence() {
    let unclear = history(MOVED, (2, 90), &[At::Gone(60), At::Gone(30)]);
    assert_eq!(
        apply_decision(Accepted::Same, &known(), &unclear),
        Resume::Continue { changed: true }
    );
    assert!(matches!(
        apply_decision(Accepted::New, &known(), &unclear),
        Resume::Begin { after: 0, .. }
    ));
    // A source cannot continue after the end of a stream.
    assert!(matches!(
        apply_decision(Accepted::Same, &known(), &history(MOVED, (2, 40), &[])),
        Resume::BeginAfterTime { time_ns: 600, .. }
    ));
}

fn observation(resume: Option<Resume>, leader: &str, behind: &[&str]) -> Observation {
    Observation {
        resume,
        cluster: Some(ClusterFacts {
            leader: Some(leader.to_owned()),
            behind: behind.iter().map(|&name| name.to_owned()).collect(),
        }),
    }
}

fn begin(reason: &str) -> Option<Resume> {
    Some(Resume::Begin {
        after: 0,
        reason: reason.to_owned(),
    })
}

#[test]
fn a_cluster_conclusion_requires_two_equal_observations() {
    let apart = Duration::from_secs(10);
    let acts = |earlier: Option<(&Observation, u64)>, now: &Observation| {
        let earlier = earlier.map(|(observation, seconds)| (observation, Duration::from_secs(seconds)));
        next_step(earlier, now, apart) == NextStep::Act
    };
    let first = observation(begin("its last sequence is 40"), "n1", &[]);
    assert!(!acts(None, &first));
    assert!(!acts(Some((&first, 9)), &first));
    assert!(acts(Some((&first, 10)), &first));
    // New messages arrive between the observations; the conclusion is the same.
    assert!(acts(
        Some((&first, 10)),
        &observation(begin("its last sequence is 41"), "n1", &[])
    ));
    for (what, other) in [
        (
            "another leader",
            observation(begin("its last sequence is 40"), "n2", &[]),
        ),
        (
            "a replica that lags",
            observation(begin("its last sequence is 40"), "n1", &["n3"]),
        ),
        ("another conclusion", observation(None, "n1", &[])),
    ] {
        assert!(!acts(Some((&first, 60)), &other), "{what}");
        assert!(!acts(Some((&other, 60)), &first), "{what}");
    }
    assert!(acts(
        Some((&observation(None, "n1", &[]), 10)),
        &observation(None, "n1", &[])
    ));
    // A conclusion that changes nothing needs no second observation.
    assert!(acts(
        None,
        &observation(Some(Resume::Continue { changed: true }), "n1", &["n3"])
    ));
    let ask = Resume::Ask {
        reason: String::new(),
    };
    assert!(acts(None, &observation(Some(ask), "n1", &[])));
}

#[test]
fn a_single_server_needs_one_observation() {
    let now = Observation {
        resume: begin("the stream was recreated"),
        cluster: None,
    };
    assert_eq!(next_step(None, &now, Duration::from_secs(10)), NextStep::Act);
}

#[test]
fn the_wait_for_a_second_observation_begins_with_the_first_one_that_agrees() {
    let apart = Duration::from_secs(10);
    let first = observation(begin("shorter"), "n1", &[]);
    let keeps = |earlier: &Observation, now: &Observation| match next_step(
        Some((earlier, Duration::from_secs(1))),
        now,
        apart,
    ) {
        NextStep::ObserveAgain { keep_earlier, reason } => {
            assert!(reason.contains("waiting for a second observation"), "{reason}");
            keep_earlier
        }
        NextStep::Act => panic!("too early"),
    };
    assert!(keeps(&first, &first));
    assert!(!keeps(&first, &observation(begin("shorter"), "n2", &[])));
    assert!(!keeps(&first, &observation(begin("shorter"), "n1", &["n3"])));
}
