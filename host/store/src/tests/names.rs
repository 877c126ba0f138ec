//! The names of indexes and tables do not collide, also in databases of earlier versions.

use super::*;
use lantern_model::schema::{PluginName, TableName};

/// A plugin `other-NUMBER` with one table of this name.
pub(super) fn other(number: usize, table: &str) -> Manifest {
    let mut manifest = orders();
    manifest.name = PluginName::parse(&format!("other-{number}")).unwrap();
    manifest.tables.truncate(1);
    manifest.writes.retain(|write| write.table == 0);
    manifest.tables[0].name = TableName::parse(table).unwrap();
    manifest
}

const NAMES: [&str; 3] = ["orders__origin", "orders__at__index", "notes__at__index"];

#[tokio::test]
async fn a_table_may_have_the_name_that_an_index_of_another_plugin_suggests() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path())).await.unwrap();
    for (number, name) in NAMES.iter().enumerate() {
        store
            .plugins()
            .adopt(adoption(other(number, name)))
            .await
            .unwrap();
    }
    store.plugins().adopt(adoption(orders())).await.unwrap();
    sound(&store);
}

#[tokio::test]
async fn an_index_of_an_earlier_version_gives_its_name_to_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path()).await;
    scene
        .store
        .commit(scene.batch(0, vec![order("a", 1), note(1)]))
        .await
        .unwrap();
    let indexes = "SELECT tbl_name, count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL
         GROUP BY tbl_name ORDER BY tbl_name";
    let before = scene.query(indexes);
    // As earlier versions named them.
    rusqlite::Connection::open(scene.store.path().unwrap())
        .unwrap()
        .execute_batch(
            "DROP INDEX \"orders#origin\"; DROP INDEX \"notes#at#index\";
             CREATE UNIQUE INDEX orders__origin ON orders (_origin, _sequence, _row);
             CREATE INDEX notes__at__index ON notes (at);",
        )
        .unwrap();
    for (number, name) in NAMES.iter().enumerate() {
        scene
            .store
            .plugins()
            .adopt(adoption(other(number, name)))
            .await
            .unwrap();
    }
    assert_eq!(
        scene.query("SELECT type FROM sqlite_schema WHERE name IN ('orders__origin', 'notes__at__index')"),
        "table; table"
    );
    let after = scene.query(indexes);
    assert!(
        before.split("; ").all(|table| after.contains(table)),
        "{before}: {after}"
    );
    sound(&scene.store);
}
