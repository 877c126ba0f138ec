//! What the plugin answers to each message in `fixtures/`.

use otel_logs::OtelLogs;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<OtelLogs>("fixtures");
}
