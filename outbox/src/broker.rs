//! The broker to which a drain publishes, and the options of the drain.

use std::io;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr, ToServerAddrs};
use percent_encoding::percent_decode_str;

/// Options of a drain.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DrainOptions {
    /// Maximum number of events in flight, and of events repeated after a crash. With a round trip of 1 ms the default of 256
    /// allows 256,000 events per second, with 10 ms 25,600. With 1, a broker that rejects an event and accepts the next one of
    /// the same subject cannot change their order.
    pub window: usize,
    /// Maximum payload bytes in flight; a single event may exceed it. The default is 8 MiB, to limit the memory of the producer.
    pub window_bytes: usize,
    /// Timeout of an acknowledgement. The default is 30 s.
    pub ack_timeout: Duration,
    /// Poll interval for events of other processes. Events of this process are noticed immediately. The default is 250 ms.
    pub poll_interval: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            window: 256,
            window_bytes: 8 * 1024 * 1024,
            ack_timeout: Duration::from_secs(30),
            poll_interval: Duration::from_millis(250),
        }
    }
}

/// The servers, and how to connect to them.
///
/// The drain manages its connections itself, because the order of events depends on what happens when a connection is lost.
/// It replaces the callbacks for events, reconnect delay and server selection in `options`.
#[derive(Clone, Debug)]
pub struct Broker {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) options: ConnectOptions,
}

impl Broker {
    /// A broker at these addresses, for example `"nats://127.0.0.1:4222"`.
    ///
    /// # Errors
    /// If an address is invalid.
    pub fn new(servers: impl ToServerAddrs, options: ConnectOptions) -> io::Result<Self> {
        Ok(Self {
            servers: servers.to_server_addrs()?.collect(),
            options,
        })
    }

    /// A broker at comma-separated addresses. An address may contain a user and a password, or a token (a user without a
    /// password), with percent-encoding.
    ///
    /// # Errors
    /// If an address is invalid.
    pub fn at(url: &str) -> io::Result<Self> {
        let mut options = ConnectOptions::new();
        let mut servers = Vec::new();
        for address in url
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let address: ServerAddr = address.parse()?;
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            options = match (address.username(), address.password()) {
                (Some(user), Some(password)) => options.user_and_password(decoded(user), decoded(password)),
                (Some(token), None) => options.token(decoded(token)),
                (None, _) => options,
            };
            servers.push(address);
        }
        Ok(Self { servers, options })
    }

    /// Connects to the broker, for messages that do not use an outbox.
    ///
    /// # Errors
    /// If the broker is unreachable or rejects the credentials.
    pub async fn connect(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        self.options.clone().connect(self.servers.clone()).await
    }
}
