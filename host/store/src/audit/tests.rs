//! The audit in a real file: one line for each action, entries that precede their change, and what `check` finds in an
//! edited file.

mod chain;

use std::path::Path;

use super::*;
use crate::check::{CheckError, Report, check, check_with};
use crate::reader::{AuditFilter, Page, Reader};
use crate::testing::{Scene, adoption, orders};
use crate::{
    Accepted, Activation, NewToken, NewVersion, OpenDeadLetterFilter, Pause, PausedBy, Role, StoreConfig,
};
use lantern_model::batch::{Outcome, Rejection, RejectionClass};
use lantern_model::results::audit::AuditRecord;
use lantern_model::schema::{ManifestDescription, TableName, TokenName};

fn entry(action: &str, outcome: AuditOutcome) -> AuditEntry {
    AuditEntry {
        actor: Actor::parse("ann"),
        action: action.into(),
        plugin: Some("things".into()),
        digest: None,
        outcome,
        detail: format!("about {action}"),
    }
}

async fn open(dir: &Path) -> (Store, Reader) {
    let store = Store::open(StoreConfig::new(dir)).await.unwrap();
    let reader = Reader::open(store.path().unwrap()).await.unwrap();
    (store, reader)
}

async fn close(store: Store, reader: Reader) {
    reader.close().await;
    store.close().await;
}

/// The list, as `action outcome detail`.
async fn lines(reader: &Reader) -> Vec<String> {
    let page = reader.audit(&AuditFilter::default(), 100, None).await.unwrap();
    let line = |entry: &AuditRecord| format!("{} {} {}", entry.action, entry.outcome, entry.detail);
    page.items.iter().map(line).collect()
}

fn sql(path: &Path, statements: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(statements).unwrap();
}

fn problems(report: Result<Report, CheckError>) -> Vec<String> {
    let problems = report.unwrap().problems.into_iter();
    problems.map(|problem| problem.problem).collect()
}

fn head(path: &Path) -> AuditHash {
    check(path).unwrap().audit.head.unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_audit_is_read_by_pages_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reader) = open(dir.path()).await;
    for number in 0..5 {
        let entry = AuditEntry {
            actor: Actor::parse(["ann", "bob"][number % 2]),
            action: ["plugin.pause", "token.create"][usize::from(number > 2)].into(),
            plugin: (number < 3).then(|| "things".into()),
            digest: None,
            outcome: AuditOutcome::Done,
            detail: format!("{number}\u{1b}[31m{}", "x".repeat(10_000)),
        };
        store.append_audit(entry).await.unwrap();
    }
    let all = AuditFilter::default();
    let page = reader.audit(&all, 2, None).await.unwrap();
    let ids = |page: &Page<AuditRecord>| page.items.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!((ids(&page), page.next), (vec![5, 4], Some(4)));
    let page = reader.audit(&all, 3, page.next).await.unwrap();
    assert_eq!((ids(&page), page.next), (vec![3, 2, 1], None));
    assert!(page.items[0].detail.len() <= TEXT_BYTES_MAX && !page.items[0].detail.contains('\u{1b}'));
    for (filter, expected) in [
        (("ann", "", ""), vec![5, 3, 1]),
        (("", "plugin.pause", ""), vec![3, 2, 1]),
        (("bob", "", "things"), vec![2]),
        (("' OR 1=1 --", "", ""), vec![]),
    ] {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let filter = AuditFilter {
            actor: some(filter.0),
            action: some(filter.1),
            plugin: some(filter.2),
        };
        assert_eq!(
            ids(&reader.audit(&filter, 100, None).await.unwrap()),
            expected,
            "{filter:?}"
        );
    }
}

#[tokio::test]
async fn a_change_is_one_line_from_its_start_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reader) = open(dir.path()).await;
    let begun = store
        .begin_audit(entry("plugin.pause", AuditOutcome::Done))
        .await
        .unwrap();
    assert_eq!(lines(&reader).await, ["plugin.pause started about plugin.pause"]);
    for outcome in [AuditOutcome::Refused, AuditOutcome::Done] {
        // Only the first end counts.
        store
            .end_audit(begun, entry("plugin.pause", outcome))
            .await
            .unwrap();
    }
    assert_eq!(lines(&reader).await, ["plugin.pause refused about plugin.pause"]);
    let page = reader.audit(&AuditFilter::default(), 1, None).await.unwrap();
    assert!(
        page.items[0]
            .began_at
            .as_ref()
            .is_some_and(|at| *at <= page.items[0].at)
    );
    assert_eq!(page.items[0].hash, Some(head(store.path().unwrap()).to_string()));

    // The database was replaced during the change.
    let elsewhere = AuditId { id: 900, ..begun };
    store
        .end_audit(elsewhere, entry("plugin.set", AuditOutcome::Done))
        .await
        .unwrap();
    assert_eq!(lines(&reader).await[0], "plugin.set done about plugin.set");
    assert_eq!(problems(check(store.path().unwrap())), [] as [&str; 0]);
}

#[tokio::test]
async fn a_change_that_was_interrupted_is_ended_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reader) = open(dir.path()).await;
    for action in ["plugin.remove", "plugin.pause"] {
        store
            .begin_audit(entry(action, AuditOutcome::Done))
            .await
            .unwrap();
    }
    close(store, reader).await;
    for _ in 0..2 {
        let (store, reader) = open(dir.path()).await;
        assert_eq!(
            lines(&reader).await,
            ["plugin.pause", "plugin.remove"].map(|action| format!(
                "{action} interrupted about {action}: the host stopped before the change ended; it may have taken effect"
            ))
        );
        assert_eq!(problems(check(store.path().unwrap())), [] as [&str; 0]);
        close(store, reader).await;
    }
}

/// The chain covers the text of an actor, so a row that another version wrote has to keep it.
#[tokio::test]
async fn actors_keep_their_stored_form() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reader) = open(dir.path()).await;
    let stored = [
        "ann",
        "local",
        "(host)",
        "(automatic rollback)",
        "(nobody)",
        "(clock)",
    ];
    for actor in stored {
        let entry = AuditEntry {
            actor: Actor::parse(actor),
            ..entry("plugin.pause", AuditOutcome::Done)
        };
        store.begin_audit(entry).await.unwrap();
    }
    close(store, reader).await;
    let connection = Connection::open(dir.path().join(crate::DATABASE_FILE)).unwrap();
    let actors = |connection: &Connection| -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT actor FROM _lantern_audit ORDER BY id")
            .unwrap();
        let actors = statement.query_map([], |row| row.get(0)).unwrap();
        actors.map(Result::unwrap).collect()
    };
    assert_eq!(actors(&connection), stored);
    // The next start adds a closing row with the same actor to each entry.
    let (store, reader) = open(dir.path()).await;
    assert_eq!(actors(&connection), [stored, stored].concat());
    assert_eq!(problems(check(store.path().unwrap())), [] as [&str; 0]);
    close(store, reader).await;
}

#[tokio::test]
async fn a_token_and_its_entry_are_kept_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reader) = open(dir.path()).await;
    let token = |name: &str, byte| NewToken {
        name: TokenName::parse(name).unwrap(),
        role: Role::Operator,
        sha256: [byte; 32],
        created_at: Timestamp(1),
        created_by: Actor::parse("ann"),
        expires_at: None,
    };
    let mark = || Some(AuditMark::from(entry("token.create", AuditOutcome::Done)));
    assert!(store.create_token(token("ci", 1), mark()).await.unwrap());
    // The name is taken: nothing changes, so there is nothing to record.
    assert!(!store.create_token(token("ci", 2), mark()).await.unwrap());
    assert_eq!(lines(&reader).await.len(), 1);
    sql(
        store.path().unwrap(),
        "CREATE TRIGGER full BEFORE INSERT ON _lantern_audit BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    );
    let refused = store.create_token(token("other", 3), mark()).await;
    assert!(
        matches!(&refused, Err(CommitError::Failed(why)) if why.contains("disk full")),
        "{refused:?}"
    );
    let name = TokenName::parse("ci").unwrap();
    assert!(store.revoke_token(&name, mark()).await.is_err());
    let began = store
        .begin_audit(entry("plugin.pause", AuditOutcome::Started))
        .await;
    assert!(began.is_err());
    let kept = reader.tokens().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].name, "ci");
}

/// Everything in the database except the audit, as text.
fn contents(scene: &Scene) -> Vec<String> {
    let names = scene.query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> '_lantern_audit' ORDER BY name",
    );
    let names = names.split("; ");
    names
        .map(|name| format!("{name}: {}", scene.query(&format!("SELECT * FROM \"{name}\""))))
        .collect()
}

/// Makes the change with this number.
async fn change(scene: &Scene, number: usize, mark: AuditMark) -> Result<(), String> {
    let (store, mark) = (&scene.store, Some(mark));
    let plugins = store.plugins();
    let mut newer = orders();
    newer.doc = "newer".into();
    let changed = match number {
        0 => {
            let arrival = NewVersion {
                description: ManifestDescription::from(&newer),
                adoption: adoption(newer),
                component_bytes: 1,
                came_from: "sent by ann".into(),
            };
            plugins.install(arrival, mark).await
        }
        1 => {
            let activated = plugins.activate(adoption(newer), Activation::Activate, mark);
            return activated.await.map(drop).map_err(|error| error.to_string());
        }
        2 => {
            let pause = Pause {
                by: PausedBy::Operator,
                reason: "a new disk".into(),
            };
            plugins.set_paused("orders", Some(pause), mark).await
        }
        3 => {
            plugins
                .set_settings("orders", "{\"wasi\":true}".into(), mark)
                .await
        }
        4 => {
            let all = OpenDeadLetterFilter::default();
            store.dead_letters().discard(all, mark).await.map(drop)
        }
        5 => {
            let accepted = Accepted::New;
            let sources = store.sources();
            sources
                .answer_question("orders", "orders", accepted, mark)
                .await
                .map(drop)
        }
        6 => {
            let table = TableName::parse("notes").unwrap();
            store.search().set_enabled(&table, true, mark).await
        }
        _ => plugins.remove("orders", true, Vec::new(), mark).await.map(drop),
    };
    changed.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_change_and_the_end_of_its_entry_are_committed_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    let reader = Reader::open(scene.store.path().unwrap()).await.unwrap();
    let rejection = Rejection::new(RejectionClass::Malformed, "no id");
    let batch = scene.batch(0, vec![Outcome::Reject(rejection)]);
    scene.store.commit(batch).await.unwrap();
    let origin = scene.attached.origin;
    scene
        .store
        .sources()
        .set_question(origin, Some(7_000))
        .await
        .unwrap();
    let details = [
        "",
        "",
        "",
        "",
        "1 discarded",
        "stream created at 1970-01-01T00:00:00.000007Z",
        "",
        "dropped tables notes, orders",
    ];
    for (number, detail) in details.into_iter().enumerate() {
        let name = format!("change.{number}");
        let end = AuditEntry {
            detail: String::new(),
            ..entry(&name, AuditOutcome::Done)
        };
        let begun = scene.store.begin_audit(end.clone()).await.unwrap();
        let mark = AuditMark::ending(begun, end);
        sql(
            scene.store.path().unwrap(),
            "CREATE TRIGGER full BEFORE INSERT ON _lantern_audit BEGIN SELECT RAISE(ABORT, 'disk full'); END",
        );
        let before = contents(&scene);
        let refused = change(&scene, number, mark.clone()).await.unwrap_err();
        assert!(refused.contains("disk full"), "{name}: {refused}");
        assert_eq!(contents(&scene), before, "{name} took effect without its entry");
        sql(scene.store.path().unwrap(), "DROP TRIGGER full");
        change(&scene, number, mark).await.unwrap();
        assert_ne!(contents(&scene), before, "{name} had no effect");
        assert_eq!(lines(&reader).await[0], format!("{name} done {detail}"));
    }
    reader.close().await;
    scene.store.close().await;
}

#[test]
fn a_hash_is_64_hexadecimal_digits() {
    let text = "0123456789abcdef".repeat(4);
    let hash: AuditHash = text.to_uppercase().parse().unwrap();
    assert_eq!(hash.to_string(), text);
    for wrong in [
        "",
        "abc",
        &text[1..],
        &format!("{text}0"),
        &"ß".repeat(32),
        &format!("+{}", &text[1..]),
    ] {
        assert!(wrong.parse::<AuditHash>().is_err(), "{wrong}");
    }
}
