//! Tests signed plugins: what each policy accepts for every way of installation and at each start, and that a rejection
//! loses no data.

use std::fs;
use std::io::Cursor;

use lantern_lifecycle::Component;
use lantern_model::results::plugins::SignatureState;
use lantern_trust::signature::{Fault, Rule, TrustedKey};
use minisign::KeyPair;

use super::*;

fn keys() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn signature(keys: &KeyPair, bytes: &[u8]) -> Vec<u8> {
    minisign::sign(None, &keys.sk, Cursor::new(bytes), Some("a comment"), None)
        .unwrap()
        .into_string()
        .into_bytes()
}

fn signed(keys: &KeyPair, letter: u8) -> Component {
    let component = evolving::version(letter);
    Component {
        signature: Some(signature(keys, &component)),
        bytes: component,
    }
}

fn policy(rule: Rule, keys: &[&KeyPair]) -> Policy {
    let trusted = |keys: &&KeyPair| TrustedKey::parse(&keys.pk.to_box().unwrap().into_string()).unwrap();
    Policy {
        rule,
        keys: keys.iter().map(trusted).collect(),
    }
}

impl Scene {
    /// Restarts the host with this policy.
    async fn under(&mut self, rule: Rule, keys: &[&KeyPair]) {
        self.close().await;
        self.signatures = policy(rule, keys);
        self.open().await;
    }

    async fn send(&self, component: Component) -> Result<Installed, LifecycleError> {
        let installed = self.lifecycle().install(component, &operator()).await?;
        self.lifecycle()
            .activate("evolving", Some(installed.digest), &operator())
            .await
    }

    async fn wait_until_refused(&self, word: &str) {
        self.wait(word, |scene| {
            let refusals = scene.lifecycle().load_failures();
            refusals
                .iter()
                .any(|refusal| refusal.unsigned && refusal.reason.contains(word))
        })
        .await;
    }

    async fn signature_of(&self, version: usize) -> SignatureState {
        let shown = self.lifecycle().show("evolving").await.unwrap();
        shown.versions[version].signature.state
    }
}

#[track_caller]
fn fault(refused: Result<Installed, LifecycleError>) -> Fault {
    match refused.unwrap_err() {
        LifecycleError::Signature { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_without_a_good_signature_changes_nothing_and_the_old_version_keeps_running() {
    let (ours, other) = (keys(), keys());
    let mut scene = Scene::start().await;
    scene.under(Rule::Require, &[&ours]).await;
    scene.send(signed(&ours, b'a')).await.unwrap();
    scene.project(1..=5).await;

    let unsigned: Component = evolving::version(b'i').into();
    assert_eq!(fault(scene.send(unsigned).await), Fault::Missing);
    let by_other = fault(scene.send(signed(&other, b'i')).await);
    assert!(matches!(by_other, Fault::UnknownKey { .. }), "{by_other}");
    let of_another_file = Component {
        bytes: evolving::version(b'i'),
        ..signed(&ours, b'a')
    };
    let changed = fault(scene.send(of_another_file).await);
    assert!(matches!(changed, Fault::Changed { .. }), "{changed}");
    let junk = Component {
        signature: Some(b"junk".to_vec()),
        bytes: evolving::version(b'i'),
    };
    assert_eq!(fault(scene.send(junk).await), Fault::Malformed);
    // Invalid bytes are rejected for the missing signature, because the host verifies the signature before it parses
    // the component.
    assert_eq!(fault(scene.send(b"junk".to_vec().into()).await), Fault::Missing);

    scene.project(6..=10).await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
    assert_eq!(scene.show().await.versions.len(), 1);
    // Bytes whose good signature is already stored need no new one.
    scene.send(evolving::version(b'a').into()).await.unwrap();
    scene.send(signed(&ours, b'i')).await.unwrap();
    scene.project(11..=12).await;
    assert_eq!(
        scene.query("SELECT note, count(*) FROM evolved GROUP BY note"),
        ["a|10", "i|2"]
    );
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_file_may_appear_before_or_after_its_component() {
    let ours = keys();
    let mut scene = Scene::start().await;
    scene.under(Rule::Require, &[&ours]).await;
    let Component {
        bytes: component,
        signature,
    } = signed(&ours, b'a');
    scene.place("evolving.wasm.minisig", &signature.unwrap());
    scene.place("evolving.wasm", &component);
    scene.wait_for_version("1.0.0").await;
    scene.project(1..=5).await;

    let Component {
        bytes: component,
        signature,
    } = signed(&ours, b'i');
    scene.place("evolving.wasm", &component);
    scene.wait_until_refused("does not match").await;
    scene.project(6..=10).await;
    fs::remove_file(scene.file("evolving.wasm.minisig")).unwrap();
    scene.wait_until_refused("it has no signature").await;
    assert_eq!(scene.status("evolve").unwrap().version, "1.0.0");
    scene.place("evolving.wasm.minisig", &signature.unwrap());
    scene.wait_for_version("1.0.1").await;
    scene.wait_for_no_failure().await;
    scene.project(11..=12).await;
    // A signature worse than the stored one has no effect.
    scene.place("evolving.wasm.minisig", b"junk");
    scene.wait_for_scans(2).await;
    assert!(scene.lifecycle().load_failures().is_empty());
    scene.close().await;
    scene.open().await;
    scene.project(13..=15).await;
    scene.close().await;
    assert_eq!(
        scene.query("SELECT note, count(*) FROM evolved GROUP BY note"),
        ["a|10", "i|5"]
    );
    let refused = scene.query(
        "SELECT actor, action, digest IS NOT NULL FROM _lantern_audit WHERE outcome = 'refused' ORDER BY id",
    );
    assert_eq!(refused, ["(plugin directory)|plugin.refuse|1"; 2]);
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_a_key_stops_its_versions_until_another_signature_exists() {
    let (old, new) = (keys(), keys());
    let mut scene = Scene::start().await;
    scene.under(Rule::Require, &[&old]).await;
    scene.send(signed(&old, b'a')).await.unwrap();
    scene.project(1..=5).await;

    scene.under(Rule::Require, &[&new]).await;
    // Nothing else is installed, and the host still runs.
    let [refusal] = &scene.lifecycle().load_failures()[..] else {
        panic!("{:?}", scene.lifecycle().load_failures());
    };
    assert!(refusal.blocks_messages && refusal.unsigned, "{refusal:?}");
    assert!(
        refusal.reason.contains("not among plugins.keys")
            && refusal.reason.contains("signed with a trusted key"),
        "{refusal:?}"
    );
    let shown = scene.show().await;
    assert_eq!(shown.state, VersionState::Failed);
    assert_eq!(shown.versions[0].failed.as_ref(), Some(&refusal.reason));
    assert_eq!(scene.signature_of(0).await, SignatureState::UnknownKey);
    scene.publish(6..=10).await;
    let again = scene.lifecycle().activate("evolving", None, &operator()).await;
    assert!(matches!(fault(again), Fault::UnknownKey { .. }));
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["5"]);

    // The same bytes with a new signature.
    scene.send(signed(&new, b'a')).await.unwrap();
    scene.wait_for_checkpoint(10).await;
    assert!(scene.lifecycle().load_failures().is_empty());
    assert_eq!(scene.signature_of(0).await, SignatureState::Good);

    // A start with both keys, then one with only the first key, which no longer matches the stored signature.
    scene.under(Rule::Require, &[&old, &new]).await;
    scene.project(11..=12).await;
    scene.under(Rule::Require, &[&old]).await;
    assert_eq!(scene.lifecycle().load_failures().len(), 1);
    scene.publish(13..=15).await;
    // The key returns, and so does the plugin, without a trace of the failure.
    scene.under(Rule::Require, &[&new]).await;
    scene.wait_for_checkpoint(15).await;
    let shown = scene.show().await;
    assert_eq!(
        (shown.state, &shown.versions[0].failed),
        (VersionState::Active, &None)
    );
    scene.close().await;
    assert_eq!(scene.query("SELECT count(*) FROM evolved"), ["15"]);
    assert_eq!(
        scene.query("SELECT actor, action, plugin FROM _lantern_audit WHERE outcome = 'refused'"),
        ["(host)|plugin.refuse|evolving"; 2]
    );
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsigned_version_can_be_signed_in_the_directory_when_signatures_become_required() {
    let ours = keys();
    let mut scene = Scene::start().await;
    scene.place("evolving.wasm", &evolving::version(b'a'));
    scene.wait_for_version("1.0.0").await;
    assert_eq!(scene.signature_of(0).await, SignatureState::NotChecked);
    scene.project(1..=5).await;
    scene.under(Rule::Require, &[&ours]).await;
    scene.wait_until_refused("it has no signature").await;
    scene.publish(6..=10).await;
    let bytes = evolving::version(b'a');
    scene.place("evolving.wasm.minisig", &signature(&keys(), &bytes));
    scene.wait_until_refused("not among plugins.keys").await;
    scene.place("evolving.wasm.minisig", &signature(&ours, &bytes));
    scene.wait_for_checkpoint(10).await;
    scene.wait_for_no_failure().await;
    // It also loads at the next start, without the signature file.
    fs::remove_file(scene.file("evolving.wasm.minisig")).unwrap();
    scene.close().await;
    scene.open().await;
    scene.project(11..=12).await;
    scene.close().await;
    scene.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rule_warn_runs_everything_and_lists_unsigned_versions() {
    let (ours, other) = (keys(), keys());
    let mut scene = Scene::start().await;
    scene.under(Rule::Warn, &[&ours]).await;
    scene.send(evolving::version(b'a').into()).await.unwrap();
    assert_eq!(scene.signature_of(0).await, SignatureState::Missing);
    scene.send(signed(&other, b'i')).await.unwrap();
    assert_eq!(scene.signature_of(1).await, SignatureState::UnknownKey);
    scene.send(signed(&ours, b'i')).await.unwrap();
    assert_eq!(scene.signature_of(1).await, SignatureState::Good);
    // An invalid signature does not replace a valid one.
    scene.send(signed(&other, b'i')).await.unwrap();
    assert_eq!(scene.signature_of(1).await, SignatureState::Good);
    scene.project(1..=5).await;
    scene.rollback().await;
    // Signatures are now required: the running plugin is stopped, and the signed version can be activated.
    scene.under(Rule::Require, &[&ours]).await;
    assert_eq!(scene.lifecycle().load_failures().len(), 1);
    scene.publish(6..=10).await;
    scene
        .lifecycle()
        .activate("evolving", None, &operator())
        .await
        .unwrap();
    scene.wait_for_checkpoint(10).await;
    let back = scene.lifecycle().rollback("evolving", &operator()).await;
    assert_eq!(fault(back), Fault::Missing);
    let canary = scene.show().await.versions[0].digest.clone();
    let request = lantern_lifecycle::CanaryRequest {
        messages: Some(5),
        live: None,
    };
    let tried = scene
        .lifecycle()
        .canary("evolving", canary.parse().unwrap(), request, &operator())
        .await;
    assert!(tried.is_err_and(|error| error.unsigned().is_some()));
    scene.close().await;
    scene.sound();
}
