//! Sending, for the command line: lines become events in an outbox, and the outbox is drained. The host itself
//! never publishes.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;
use lantern_outbox::{LinesError, LinesOptions, LinesReport, Outbox, OutboxError, publish_lines};
use tokio_util::sync::CancellationToken;

/// What is to be sent, and where to.
pub struct Lines {
    /// The servers, separated by commas; may hold credentials.
    pub url: String,
    /// The subject.
    pub subject: String,
    /// Headers of each message.
    pub headers: Vec<(String, String)>,
    /// Where events wait until the broker has them; none for a folder that is gone when all were sent.
    pub outbox: Option<PathBuf>,
    /// One event a line.
    pub input: Box<dyn BufRead + Send>,
}

/// Why lines could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The address is none.
    #[error("{} is no address of a broker", super::redacted_url(url))]
    Url {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The outbox cannot be used.
    #[error("cannot use the outbox {}", path.display())]
    Outbox {
        /// Its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: OutboxError,
    },
    /// The input or the outbox failed on the way.
    #[error(transparent)]
    Lines(#[from] LinesError),
}

/// Takes all lines, and sends until the broker has them or nothing moves for 30 s.
///
/// # Errors
/// [`PublishError`]. That events still wait is told by the report, and they stay in the outbox.
pub async fn publish(lines: Lines) -> Result<LinesReport, PublishError> {
    let broker =
        lantern_outbox::Broker::new(lines.url.as_str(), ConnectOptions::new()).map_err(|source| {
            PublishError::Url {
                url: lines.url.clone(),
                source,
            }
        })?;
    let own = std::env::temp_dir().join(format!("lantern-publish-{}", uuid::Uuid::now_v7().simple()));
    let path = lines.outbox.as_deref().unwrap_or(&own);
    let failed = |source| PublishError::Outbox {
        path: path.to_owned(),
        source,
    };
    let outbox = Outbox::open(path).map_err(failed)?;
    let mut options = LinesOptions::default();
    options.headers = lines.headers;
    let report = publish_lines(
        lines.input,
        &lines.subject,
        &outbox,
        broker,
        options,
        CancellationToken::new(),
    )
    .await?;
    if lines.outbox.is_none() {
        clear(&own, &report);
    }
    Ok(report)
}

/// Removes a folder that nobody needs any more; where something waits or was set aside, it stays.
fn clear(path: &Path, report: &LinesReport) {
    if report.waiting > 0 || report.aside > 0 {
        tracing::warn!(path = %path.display(), "events that were not sent are kept; send them with --outbox");
    } else if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "the empty outbox could not be removed");
    }
}
