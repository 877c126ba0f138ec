//! Projects webhook deliveries of GitHub, published with their headers, into one table: a row for each pushed commit, and for each
//! change of an issue or a pull request. Other events are skipped.

use lantern_sdk::prelude::*;

lantern_sdk::export!(GithubWebhooks);

/// The plugin.
pub struct GithubWebhooks;

impl Plugin for GithubWebhooks {
    const SOURCES: Sources<Self> = &[Source::stream("hooks", "GITHUB", &["github.>"], hook).with_headers()];
    const WRITES: Writes = &[Activity::WRITE];
}

/// Activity in repositories. Repeated deliveries are ignored.
#[derive(Table, Row)]
#[table(name = "github_activity", primary_key = [url, at], index = [repository, at])]
#[row(on_conflict = ignore)]
struct Activity {
    /// The commit, the issue or the pull request.
    url: String,
    #[column(time)]
    at: Timestamp,
    #[column(entity)]
    repository: String,
    /// GitHub's name for the kind of event.
    #[column(facet)]
    event: String,
    /// The commit message, or the title.
    title: String,
}

fn hook(message: &Message<'_>, rows: &mut Rows<GithubWebhooks>) -> Result {
    let event = message.required_header("X-GitHub-Event")?;
    let body = message.tree()?;
    let (items, at, title) = match event {
        "push" => (body.list("commits")?, "timestamp", "message"),
        // The event `issues` has an `issue`.
        "issues" | "pull_request" => (body.list(event.trim_end_matches('s'))?, "updated_at", "title"),
        _ => return Ok(()),
    };
    for item in items {
        rows.put(Activity {
            url: item.get("url")?,
            at: item.get(at)?,
            repository: body.get("repository.full_name")?,
            event: event.to_owned(),
            title: item.get(title)?,
        });
    }
    Ok(())
}
