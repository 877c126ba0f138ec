//! The manifest of the plugin, and its outcome for each fixture.

use host_perf::HostPerf;
use lantern_sdk::native::{self, ColumnType, OnConflict, Origin, Role};

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<HostPerf>("fixtures");
}

#[test]
fn samples_are_keyed_by_machine_and_time_and_kept_for_a_month() {
    let manifest = native::describe::<HostPerf>();
    assert_eq!(
        manifest.sources[0].origin,
        Origin::Core(vec!["host_perf.>".to_owned()])
    );
    let table = &manifest.tables[0];
    assert_eq!(table.primary_key, ["pc_id", "at"]);
    assert_eq!(table.retention_days, Some(30));
    assert_eq!(manifest.writes[0].on_conflict, OnConflict::Ignore);
}

#[test]
fn every_quantity_has_a_unit_and_may_be_missing() {
    let manifest = native::describe::<HostPerf>();
    for column in &manifest.tables[0].columns[2..] {
        let (column_type, unit) = match column.name.as_str() {
            "cpu_pct" => (ColumnType::Real, "%"),
            "cpu_count" => (ColumnType::Integer, ""),
            name if name.ends_with("_bytes") => (ColumnType::Integer, "By"),
            _ => (ColumnType::Real, "By/s"),
        };
        assert_eq!(column.column_type, column_type, "{}", column.name);
        assert_eq!(column.role, Role::Measure(unit.to_owned()), "{}", column.name);
        assert!(column.nullable, "{}", column.name);
    }
    assert_eq!(manifest.tables[0].columns.len(), 12);
}
