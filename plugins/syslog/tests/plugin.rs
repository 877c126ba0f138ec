//! What the plugin answers to each message in `fixtures/`.

use syslog::Syslog;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<Syslog>("fixtures");
}
