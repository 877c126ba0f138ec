//! Each reason for a bad signature, with signatures from minisign's own crate.

use std::io::Cursor;

use minisign::KeyPair;

use super::*;

const COMPONENT: &[u8] = b"\0asm and the rest";

fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn trusted(keys: &KeyPair) -> TrustedKey {
    TrustedKey::parse(&keys.pk.to_box().unwrap().into_string()).unwrap()
}

fn signed(keys: &KeyPair, bytes: &[u8], comment: &str) -> String {
    minisign::sign(None, &keys.sk, Cursor::new(bytes), Some(comment), Some("x"))
        .unwrap()
        .into_string()
}

fn check(keys: &[&KeyPair], component: &[u8], signature: Option<&str>) -> Verdict {
    let policy = Policy {
        rule: Rule::Require,
        keys: keys.iter().map(|keys| trusted(keys)).collect(),
    };
    policy.check(component, signature.map(str::as_bytes))
}

#[test]
fn only_a_signature_of_a_trusted_key_over_the_same_bytes_is_good() {
    let (ours, other) = (keys(), keys());
    let signature = signed(&ours, COMPONENT, "orders 1.0.0");
    let good = check(&[&other, &ours], COMPONENT, Some(&signature));
    let key = trusted(&ours).id();
    assert_eq!(
        good,
        Verdict::Good {
            key,
            comment: "orders 1.0.0".into()
        }
    );
    for (bytes, signature) in [
        (&b"\0asm and another rest"[..], signature.clone()),
        (COMPONENT, signature.replace("orders 1.0.0", "orders 9.0.0")),
    ] {
        let changed = check(&[&ours], bytes, Some(&signature));
        assert_eq!(changed, Verdict::Faulty(Fault::Changed { key }));
    }
    let (trusted, ours) = (vec![trusted(&other).id()], &signature);
    assert_eq!(
        check(&[&other], COMPONENT, Some(ours)),
        Verdict::Faulty(Fault::UnknownKey { key, trusted })
    );
    assert_eq!(check(&[&other], COMPONENT, None), Verdict::Faulty(Fault::Missing));
}

#[test]
fn anything_else_than_a_signature_is_malformed() {
    let ours = keys();
    let signature = signed(&ours, COMPONENT, "c");
    let half = &signature[..signature.len() / 2];
    let long = format!("{signature}{}", " ".repeat(SIGNATURE_BYTES_MAX));
    let public = ours.pk.to_box().unwrap().into_string();
    for text in ["", "\n\n\n\n", "no\nsig\nna\nture", half, &long, &public] {
        let verdict = check(&[&ours], COMPONENT, Some(text));
        assert_eq!(verdict, Verdict::Faulty(Fault::Malformed), "{text:?}");
    }
    let policy = Policy {
        rule: Rule::Warn,
        keys: Vec::new(),
    };
    assert_eq!(
        policy.check(COMPONENT, Some(&[0xff, 0xfe])),
        Verdict::Faulty(Fault::Malformed)
    );
    assert_eq!(Policy::default().check(COMPONENT, None), Verdict::NotChecked);
}

/// From minisign's documentation: a key, and its two kinds of signatures over `test`.
#[test]
fn signatures_of_the_minisign_program_are_good_unless_they_are_of_the_old_kind() {
    let key = TrustedKey::parse("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3").unwrap();
    assert_eq!(key.id().to_string(), "E7620F1842B4E81F");
    let new = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";
    let old = "untrusted comment: signature from minisign secret key
RWQf6LRCGA9i59SLOFxz6NxvASXDJeRtuZykwQepbDEGt87ig1BNpWaVWuNrm73YiIiJbq71Wi+dP9eKL8OC351vwIasSSbXxwA=
trusted comment: timestamp:1555779966\tfile:test
QtKMXWyYcwdpZAlPF7tE2ENJkRd1ujvKjlj1m9RtHTBnZPa5WKU5uWRs5GoP5M/VqE81QFuMKI5k/SfNQUaOAA==";
    let id = key.id();
    let keys = [key];
    let Verdict::Good { comment, .. } = verify(&keys, b"test", new.as_bytes()) else {
        panic!("not good");
    };
    assert_eq!(comment, "timestamp:1633700835 file:test prehashed");
    assert_eq!(
        verify(&keys, b"test", old.as_bytes()),
        Verdict::Faulty(Fault::Legacy { key: id })
    );
    let windows = new.replace('\n', "\r\n");
    assert!(verify(&keys, b"test", windows.as_bytes()).is_good());
}

#[test]
fn a_displayed_comment_is_clean_and_short() {
    let ours = keys();
    let hostile = format!("\u{1b}[31mred {}", "x".repeat(5_000));
    let signature = signed(&ours, COMPONENT, &hostile);
    let verdict = check(&[&ours], COMPONENT, Some(&signature));
    let comment = verdict.view().comment.unwrap();
    assert!(
        !comment.contains('\u{1b}') && comment.len() <= COMMENT_BYTES_MAX,
        "{comment}"
    );
}

#[test]
fn a_secret_key_is_never_accepted_as_a_public_one() {
    let ours = keys();
    let secret = ours.sk.to_box(None).unwrap().into_string();
    assert_eq!(TrustedKey::parse(&secret), Err(KeyError::Secret));
    let protected = KeyPair::generate_encrypted_keypair(Some("p".into())).unwrap();
    let secret = protected.sk.to_box(None).unwrap().into_string();
    assert_eq!(TrustedKey::parse(&secret), Err(KeyError::Secret));
    for text in ["", "hello", "untrusted comment: x", "RWQ="] {
        assert_eq!(TrustedKey::parse(text), Err(KeyError::NotAKey), "{text:?}");
    }
}

#[test]
fn every_fault_has_a_reason_and_a_hint() {
    let key = KeyId(1);
    for fault in [
        Fault::Missing,
        Fault::Malformed,
        Fault::UnknownKey {
            key,
            trusted: vec![KeyId(2)],
        },
        Fault::Legacy { key },
        Fault::Changed { key },
    ] {
        let view = Verdict::Faulty(fault.clone()).view();
        assert!(
            view.reason
                .is_some_and(|reason| reason.contains("signature") || reason.contains("signed"))
        );
        assert!(!fault.hint().is_empty() && view.comment.is_none());
    }
}
