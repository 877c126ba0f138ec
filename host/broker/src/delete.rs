//! Deleting single messages of a stream, overwriting them in the broker's files. Only an operator's erasure does this.

use async_nats::jetstream::ErrorCode;
use serde_json::json;

use super::{Broker, BrokerError};

impl Broker {
    /// Deletes the message at `sequence` of `stream` and has the broker overwrite it. `Ok(false)` when there is no such
    /// message (any more) or no such stream.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked, does not answer, or does not allow it.
    pub async fn delete_message(&self, stream: &str, sequence: u64) -> Result<bool, BrokerError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            success: bool,
        }
        let subject = format!("STREAM.MSG.DELETE.{stream}");
        let question = json!({ "seq": sequence, "no_erase": false });
        let none = [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::STREAM_NOT_FOUND];
        let answer: Option<Answer> = self.inner.request(subject, &question, &none).await?;
        Ok(answer.is_some_and(|answer| answer.success))
    }

    /// Why no message of `stream` can be deleted, as far as the stream's configuration says so.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer.
    pub async fn delete_obstacle(&self, stream: &str) -> Result<Option<&'static str>, BrokerError> {
        let info = self.inner.stream_info(stream).await?;
        Ok(info.and_then(|info| match info.config {
            config if config.sealed => Some("the stream is sealed"),
            config if config.deny_delete => Some("the stream has deny_delete"),
            _ => None,
        }))
    }

    /// The streams that copy messages of `stream`, as mirrors or from sources. They keep what is deleted in `stream`.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker is unreachable, does not answer, or does not permit to list the streams.
    pub async fn copies_of(&self, stream: &str) -> Result<Vec<String>, BrokerError> {
        let mut copies = Vec::new();
        let mut offset = 0;
        loop {
            let question = json!({ "offset": offset });
            let page: Option<StreamPage> = self
                .inner
                .request("STREAM.LIST".to_owned(), &question, &[])
                .await?;
            let Some(StreamPage {
                streams: Some(streams),
                total,
            }) = page
            else {
                break;
            };
            offset += streams.len();
            let done = streams.is_empty() || offset >= total;
            let found = streams.into_iter().filter(|listed| listed.config.copies(stream));
            copies.extend(found.map(|listed| listed.config.name));
            if done {
                break;
            }
        }
        Ok(copies)
    }
}

/// One page of the broker's list of streams.
#[derive(serde::Deserialize)]
struct StreamPage {
    /// `null` when there is none.
    streams: Option<Vec<ListedStream>>,
    total: usize,
}

#[derive(serde::Deserialize)]
struct ListedStream {
    config: ListedConfig,
}

#[derive(serde::Deserialize)]
struct ListedConfig {
    name: String,
    mirror: Option<CopiedStream>,
    #[serde(default)]
    sources: Vec<CopiedStream>,
}

#[derive(serde::Deserialize)]
struct CopiedStream {
    name: String,
}

impl ListedConfig {
    fn copies(&self, stream: &str) -> bool {
        let mut copied = self.mirror.iter().chain(&self.sources);
        copied.any(|copied| copied.name == stream)
    }
}
