//! What comes from files: configuration, fixtures and samples, keys and signatures.

use std::path::Path;
use std::sync::LazyLock;

use lantern_authoring::{fixture, guess, sample};
use lantern_model::batch::Delivery;
use lantern_trust::signature::{Policy, Rule, SIGNATURE_BYTES_MAX, TrustedKey, Verdict, key_named, verify};

use crate::text;

/// A configuration file: what was understood, written as a configuration file, is understood as the same.
pub fn configuration(input: &[u8]) {
    let shown = lantern::config::fuzzing::show(text(input));
    let again = lantern::config::fuzzing::show(&shown.text);
    assert_eq!(again.problems, 0, "what is shown is refused:\n{}", shown.text);
    assert_eq!(
        again.values, shown.values,
        "not read back as shown:\n{}",
        shown.text
    );
}

/// Files with messages, as each kind of name says, and a guess at a table from a sample.
pub fn fixture(input: &[u8]) {
    let subjects = ["a.*.c".to_owned()];
    for name in ["x.message.json", "x.messages.jsonl", "x.jsonl", "x.bin"] {
        let Ok(messages) = fixture::messages(Path::new(name), input, &subjects) else {
            continue;
        };
        assert!(!messages.is_empty(), "a file without messages was accepted");
        messages.iter().for_each(comes_back);
    }
    if let Ok(sample) = sample::split(input, "sample".to_owned()) {
        assert!(
            sample.messages.len() <= sample::MESSAGES_MAX,
            "more than was to be read"
        );
        let guess = guess::guess(&sample.messages);
        for message in &sample.messages {
            drop(guess.values(message));
        }
    }
}

/// A recorded message is a file that is read back with the same subject, headers and payload.
fn comes_back(message: &Delivery) {
    let written = fixture::envelope(message);
    let read = fixture::messages(Path::new("x.message.json"), written.as_bytes(), &[]);
    let Ok([again]) = read.as_deref() else {
        assert!(
            read.is_ok(),
            "what was recorded cannot be read: {read:?}\n{written}"
        );
        return;
    };
    assert_eq!(again.payload, message.payload, "{written}");
    assert_eq!(again.subject, message.subject, "{written}");
    assert_eq!(again.sequence, message.sequence, "{written}");
    // Sorted by name, as a delivery has them.
    let mut headers = message.headers.clone();
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(again.headers, headers, "{written}");
}

/// A public key of minisign's own documentation. Nobody here has its other half.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

static KEYS: LazyLock<Vec<TrustedKey>> = LazyLock::new(|| TrustedKey::parse(KEY).into_iter().collect());

/// The text of a key, and a signature over bytes: no input is a good one.
pub fn signature(input: &[u8]) {
    drop(TrustedKey::parse(text(input)));
    let half = input.len() / 2;
    for (component, signature) in [(&b"component"[..], input), (&input[..half], &input[half..])] {
        let verdict = verify(&KEYS, component, signature);
        assert!(!verdict.is_good(), "a signature that nobody made is good");
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
