//! Tests of the hash chain: tampering, a noted hash, and entries of an earlier version.

use super::*;

/// Six rows: of two changes, a refusal and a read.
async fn filled(dir: &Path) -> std::path::PathBuf {
    let (store, reader) = open(dir).await;
    for action in ["plugin.pause", "plugin.resume"] {
        let begun = store
            .begin_audit(entry(action, AuditOutcome::Done))
            .await
            .unwrap();
        store
            .end_audit(begun, entry(action, AuditOutcome::Done))
            .await
            .unwrap();
    }
    for (action, outcome) in [
        ("token.create", AuditOutcome::Refused),
        ("sql.query", AuditOutcome::Done),
    ] {
        store.append_audit(entry(action, outcome)).await.unwrap();
    }
    let path = store.path().unwrap().to_owned();
    close(store, reader).await;
    path
}

/// The check finds the tampering at once, and also after the host has appended a row.
async fn check_finds(tampering: &str, expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    assert_eq!(problems(check(&path)), [] as [&str; 0]);
    sql(&path, tampering);
    let found = problems(check(&path));
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with(&format!("audit: {expected}"))),
        "{tampering}: {found:?}"
    );
    if expected.starts_with("no entry") {
        return;
    }
    let (store, reader) = open(dir.path()).await;
    store
        .append_audit(entry("plugin.set", AuditOutcome::Done))
        .await
        .unwrap();
    close(store, reader).await;
    let found = problems(check(&path));
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with(&format!("audit: {expected}"))),
        "{tampering}, later: {found:?}"
    );
}

#[tokio::test]
async fn check_names_the_first_row_that_was_altered_removed_or_inserted() {
    let columns = "at, actor, action, outcome, detail";
    let insert = format!("INSERT INTO _lantern_audit (id, {columns}, hash) SELECT 7, {columns}");
    for (tampering, expected) in [
        (
            "UPDATE _lantern_audit SET detail = 'nothing' WHERE id = 3",
            "entry 3 does not match its hash",
        ),
        (
            "UPDATE _lantern_audit SET actor = 'bob'",
            "entry 1 does not match its hash",
        ),
        (
            "UPDATE _lantern_audit SET plugin = NULL WHERE id = 6",
            "entry 6 does not match its hash",
        ),
        (
            "UPDATE _lantern_audit SET ends = NULL WHERE id = 2",
            "entry 2 does not match its hash",
        ),
        (
            "UPDATE _lantern_audit SET hash = zeroblob(32) WHERE id = 4",
            "entry 4 does not match its hash",
        ),
        (
            "UPDATE _lantern_audit SET hash = x'00' WHERE id = 4",
            "entry 4 has no hash",
        ),
        ("DELETE FROM _lantern_audit WHERE id = 5", "entry 5 is missing"),
        ("DELETE FROM _lantern_audit WHERE id = 1", "entry 1 is missing"),
        (
            "DELETE FROM _lantern_audit WHERE id < 4",
            "entries 1 to 3 are missing",
        ),
        (
            "UPDATE _lantern_audit SET id = 50 WHERE id = 5; UPDATE _lantern_audit SET id = 5 WHERE id = 6;
             UPDATE _lantern_audit SET id = 6 WHERE id = 50",
            "entry 5 does not match its hash",
        ),
        (
            &format!("{insert}, NULL FROM _lantern_audit WHERE id = 6"),
            "entry 7 has no hash",
        ),
        (
            &format!("{insert}, hash FROM _lantern_audit WHERE id = 6"),
            "entry 7 does not match its hash",
        ),
        ("UPDATE _lantern_audit SET hash = NULL", "no entry has a hash"),
    ] {
        check_finds(tampering, expected).await;
    }
}

#[tokio::test]
async fn a_hash_that_was_noted_shows_that_the_end_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    let noted = head(&path);
    let report = check_with(&path, Some(noted)).unwrap();
    assert_eq!((report.audit.rows, report.audit.noted_row), (6, Some(6)));
    let (store, reader) = open(dir.path()).await;
    store
        .append_audit(entry("plugin.set", AuditOutcome::Done))
        .await
        .unwrap();
    close(store, reader).await;
    // It stays part of the chain.
    let report = check_with(&path, Some(noted)).unwrap();
    assert_eq!((report.audit.rows, report.audit.noted_row), (7, Some(6)));
    assert_eq!(report.problems, []);

    for removed in ["id > 5", "id > 0"] {
        sql(&path, &format!("DELETE FROM _lantern_audit WHERE {removed}"));
        assert_eq!(problems(check(&path)), [] as [&str; 0], "without a noted hash");
        let found = problems(check_with(&path, Some(noted)));
        assert!(
            found.len() == 1 && found[0].contains(&format!("no entry has the hash {noted}")),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn the_entries_of_an_earlier_version_become_part_of_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path()).await;
    // As version 0002 of the schema made the table.
    sql(
        &path,
        "DROP TABLE _lantern_audit;
         CREATE TABLE _lantern_audit (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL,
             action TEXT NOT NULL, plugin TEXT, digest TEXT, outcome TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
         CREATE INDEX _lantern_audit_plugin ON _lantern_audit (plugin, id);
         DROP TABLE _lantern_forgotten_message;
         DROP TABLE _lantern_forgotten_value;
         DROP TABLE _lantern_searched;
         DROP TABLE _lantern_search;
         DROP TABLE _lantern_search_change;
         DROP TABLE _lantern_segments;
         DROP TABLE _lantern_segment;
         DROP TABLE _lantern_segment_origin;
         DROP TABLE _lantern_segment_facet;
         ALTER TABLE _lantern_installation DROP COLUMN paused_by;
         DELETE FROM _sqlx_migrations WHERE version >= 9;
         INSERT INTO _lantern_audit (at, actor, action, plugin, outcome, detail)
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2500)
             SELECT x, 'ann', 'plugin.pause', 'things', 'done', 'number ' || x FROM n;",
    );
    assert!(matches!(check(&path), Err(CheckError::Older { .. })));
    let (store, reader) = open(dir.path()).await;
    assert_eq!(problems(check(&path)), [] as [&str; 0]);
    let old = head(&path);
    store
        .append_audit(entry("plugin.set", AuditOutcome::Done))
        .await
        .unwrap();
    let report = check_with(&path, Some(old)).unwrap();
    assert_eq!((report.audit.rows, report.audit.noted_row), (2_501, Some(2_500)));
    assert_eq!(report.problems, []);
    assert_eq!(
        lines(&reader).await[..2],
        [
            "plugin.set done about plugin.set",
            "plugin.pause done number 2500"
        ]
    );
    close(store, reader).await;
    sql(
        &path,
        "UPDATE _lantern_audit SET detail = 'number 7.' WHERE id = 7",
    );
    let found = problems(check(&path));
    assert!(
        found[0].starts_with("audit: entry 7 does not match its hash"),
        "{found:?}"
    );
}
