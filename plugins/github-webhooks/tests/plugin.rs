//! What the plugin answers to each message in `fixtures/`.

use github_webhooks::GithubWebhooks;

#[test]
fn fixtures() {
    lantern_sdk::testing::check_fixtures::<GithubWebhooks>("fixtures");
}
