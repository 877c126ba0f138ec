//! The outcome of the plugin for each fixture.

use otel_logs::OtelLogs;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<OtelLogs>("fixtures");
}
