//! Publishes single messages unchanged, for the commands of plugin authors: each with its own subject and headers. The
//! host itself never publishes.

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};

use super::Broker;
use lantern_model::batch::Delivery;

/// The broker did not accept a message.
#[derive(Debug, thiserror::Error)]
#[error("the broker did not accept a message for {subject}: {reason}")]
pub struct SendError {
    /// The subject.
    pub subject: String,
    /// The cause.
    pub reason: String,
}

impl Broker {
    /// Publishes messages in order, and waits for each until its stream has stored it; a core NATS message (`stored`
    /// false) is only sent. The broker assigns sequence and time.
    ///
    /// # Errors
    /// The first message that was not accepted; those before it were.
    pub async fn send(&self, messages: &[Delivery], stored: bool) -> Result<(), SendError> {
        let current = self.inner.current();
        for message in messages {
            let failed = |reason: String| SendError {
                subject: message.subject.clone(),
                reason,
            };
            let headers = headers(message).map_err(failed)?;
            let (subject, payload) = (message.subject.clone(), message.payload.clone());
            if stored {
                let sent = current
                    .jetstream
                    .publish_with_headers(subject, headers, payload)
                    .await;
                let answer = sent.map_err(|error| failed(error.to_string()))?;
                answer.await.map_err(|error| failed(error.to_string()))?;
            } else {
                let sent = current
                    .client
                    .publish_with_headers(subject, headers, payload)
                    .await;
                sent.map_err(|error| failed(error.to_string()))?;
            }
        }
        let flushed = current.client.flush().await;
        flushed.map_err(|error| SendError {
            subject: messages
                .first()
                .map(|first| first.subject.clone())
                .unwrap_or_default(),
            reason: error.to_string(),
        })
    }
}

fn headers(message: &Delivery) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in &message.headers {
        // These headers of a recorded message would make the broker reject its copy.
        if name.eq_ignore_ascii_case("Nats-Msg-Id") || name.starts_with("Nats-Expected-") {
            continue;
        }
        let name: HeaderName = name.parse().map_err(|error| format!("header {name}: {error}"))?;
        let value: HeaderValue = value.parse().map_err(|error| format!("header {name}: {error}"))?;
        map.append(name, value);
    }
    Ok(map)
}
