//! A proxy between client and broker that loses data when it is cut, like a real network. Killing a process does not lose data
//! that the kernel has received.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::ConnectOptions;
use lantern_outbox::Broker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections to a server.
pub struct Line {
    address: SocketAddr,
    state: Arc<LineState>,
    cut: watch::Sender<u64>,
}

#[derive(Default)]
struct LineState {
    lose_to_server: AtomicBool,
    lose_to_client: AtomicBool,
}

impl Line {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(LineState::default());
        let (cut, cuts) = watch::channel(0);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let state = Arc::clone(&shared);
                tokio::spawn(copy(
                    from_client,
                    to_server,
                    Arc::clone(&state),
                    |s| &s.lose_to_server,
                    cuts.clone(),
                ));
                tokio::spawn(copy(
                    from_server,
                    to_client,
                    state,
                    |s| &s.lose_to_client,
                    cuts.clone(),
                ));
            }
        });
        Self { address, state, cut }
    }

    pub fn broker(&self) -> Broker {
        Broker::new(format!("nats://{}", self.address), ConnectOptions::new()).unwrap()
    }

    /// Drops all data to the server from now on, without closing connections.
    pub fn lose_to_server(&self) {
        self.state.lose_to_server.store(true, Ordering::SeqCst);
    }

    /// Drops all data to the client from now on, without closing connections.
    pub fn lose_to_client(&self) {
        self.state.lose_to_client.store(true, Ordering::SeqCst);
    }

    /// Closes all connections. New connections lose no data.
    pub fn cut(&self) {
        // In this order, so that a connection immediately after the cut loses no data.
        self.state.lose_to_server.store(false, Ordering::SeqCst);
        self.state.lose_to_client.store(false, Ordering::SeqCst);
        self.cut.send_modify(|count| *count += 1);
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<LineState>,
    loses: fn(&LineState) -> &AtomicBool,
    mut cuts: watch::Receiver<u64>,
) {
    cuts.mark_unchanged();
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    loop {
        let read = tokio::select! {
            biased;
            _ = cuts.changed() => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else { return };
        // Once data is lost, the connection keeps losing it: a network never delivers a byte stream with a hole.
        lost |= loses(&state).load(Ordering::SeqCst);
        if !lost && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
