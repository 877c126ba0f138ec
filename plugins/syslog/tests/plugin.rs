//! The outcome of the plugin for each fixture.

use syslog::Syslog;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<Syslog>("fixtures");
}
