//! Input of files: configuration, fixtures and samples, keys and signatures.

use std::path::Path;
use std::sync::LazyLock;

use lantern_authoring::{fixture, guess, sample};
use lantern_model::batch::Delivery;
use lantern_trust::signature::{Policy, Rule, SIGNATURE_BYTES_MAX, TrustedKey, Verdict, key_named, verify};

use crate::text;

/// A configuration file: the effective configuration round-trips as a file.
pub fn configuration(input: &[u8]) {
    let effective = lantern::config::fuzzing::show(text(input));
    let again = lantern::config::fuzzing::show(&effective.text);
    assert_eq!(
        again.problems, 0,
        "the displayed configuration is rejected:\n{}",
        effective.text
    );
    assert_eq!(
        again.values, effective.values,
        "does not round-trip:\n{}",
        effective.text
    );
}

/// Fixture files of each kind, and a guessed table from a sample.
pub fn fixture(input: &[u8]) {
    let subjects = ["a.*.c".to_owned()];
    for name in ["x.message.json", "x.messages.jsonl", "x.jsonl", "x.bin"] {
        let Ok(messages) = fixture::messages(Path::new(name), input, &subjects) else {
            continue;
        };
        assert!(!messages.is_empty(), "a file without messages was accepted");
        messages.iter().for_each(check_round_trip);
    }
    if let Ok(sample) = sample::split(input, "sample".to_owned()) {
        assert!(
            sample.messages.len() <= sample::MESSAGES_MAX,
            "more than the limit"
        );
        let guess = guess::guess(&sample.messages, "things");
        for message in &sample.messages {
            drop(guess.values(message));
        }
    }
}

/// A recorded message round-trips with subject, headers and payload.
fn check_round_trip(message: &Delivery) {
    let written = fixture::envelope(message);
    let read = fixture::messages(Path::new("x.message.json"), written.as_bytes(), &[]);
    let Ok([again]) = read.as_deref() else {
        assert!(
            read.is_ok(),
            "a recorded message is not readable: {read:?}\n{written}"
        );
        return;
    };
    assert_eq!(again.payload, message.payload, "{written}");
    assert_eq!(again.subject, message.subject, "{written}");
    assert_eq!(again.sequence, message.sequence, "{written}");
    // Deliveries have sorted headers.
    let mut headers = message.headers.clone();
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(again.headers, headers, "{written}");
}

/// A public key from the documentation of minisign, without a known secret key.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

static KEYS: LazyLock<Vec<TrustedKey>> = LazyLock::new(|| TrustedKey::parse(KEY).into_iter().collect());

/// A key and a signature: no input is a valid signature.
pub fn signature(input: &[u8]) {
    drop(TrustedKey::parse(text(input)));
    let half = input.len() / 2;
    for (component, signature) in [(&b"component"[..], input), (&input[..half], &input[half..])] {
        let verdict = verify(&KEYS, component, signature);
        assert!(!verdict.is_good(), "a random signature is valid");
        if let Verdict::Faulty(fault) = &verdict {
            drop((fault.hint(), fault.to_string(), verdict.view()));
        }
        let named = key_named(signature);
        assert!(
            named.is_none() || signature.len() <= SIGNATURE_BYTES_MAX,
            "too long"
        );
        let required = Policy {
            rule: Rule::Require,
            keys: KEYS.clone(),
        };
        assert!(!required.check(component, Some(signature)).is_good());
    }
}
