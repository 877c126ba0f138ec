//! The outcome of the plugin for each fixture.

use github_webhooks::GithubWebhooks;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<GithubWebhooks>("fixtures");
}
