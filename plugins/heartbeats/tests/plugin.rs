//! The manifest of the plugin, and its outcome for each fixture.

use heartbeats::Heartbeats;
use lantern_sdk::declare::Merge;
use lantern_sdk::native::{self, Guard, OnConflict, Origin};

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<Heartbeats>("fixtures");
}

#[test]
fn the_newest_heartbeat_wins_in_any_order() {
    let manifest = native::describe::<Heartbeats>();
    assert_eq!(
        manifest.sources[0].origin,
        Origin::Core(vec!["heartbeat.>".to_owned()])
    );
    assert_eq!(manifest.tables[0].name, "agents");
    assert_eq!(manifest.tables[0].primary_key, ["pc_id"]);
    let OnConflict::Update(rule) = &manifest.writes[0].on_conflict else {
        panic!("{:?}", manifest.writes[0].on_conflict);
    };
    assert_eq!(rule.key, ["pc_id"]);
    assert_eq!(rule.guard, Guard::Newer("at".to_owned()));
    let replaced: Vec<_> = rule
        .merges
        .iter()
        .map(|rule| (rule.column.as_str(), rule.merge))
        .collect();
    let all = ["at", "agent_version", "hostname", "os_family"].map(|column| (column, Merge::Replace));
    assert_eq!(replaced, all);
}
