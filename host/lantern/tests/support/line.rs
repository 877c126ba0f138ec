//! A bad network line to the broker: it delays data, and can stop forwarding without closing either connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Delays data by about two hundred milliseconds per direction, and every fiftieth piece by one second more, like a
/// lost and retransmitted packet. Keeps the order, like TCP.
pub struct Line {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
}

impl Line {
    /// Opens a line to the port of a broker on this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            address: listener.local_addr().unwrap(),
            silent: Arc::default(),
        };
        let silent = Arc::clone(&line.silent);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                // If the broker is not running, close the connection at once.
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), &silent);
                carry(far, near, &silent);
            }
        });
        line
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Stops forwarding without closing connections, or resumes with the delayed data.
    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, silent: &Arc<AtomicBool>) {
    let (send, pieces) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut count = 0_u64;
        // After one end closes, the channel closes once everything is forwarded; then the other end is closed.
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            count += 1;
            let late = if count.is_multiple_of(50) { 1_000 } else { 0 };
            let due = Instant::now() + Duration::from_millis(100 + count * 37 % 200 + late);
            if send.send((due, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    let silent = Arc::clone(silent);
    std::thread::spawn(move || {
        deliver(&pieces, &mut to, &silent);
        // The other end may have closed first.
        drop(to.shutdown(Shutdown::Both));
    });
}

fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, to: &mut TcpStream, silent: &AtomicBool) {
    for (due, piece) in pieces {
        while silent.load(Ordering::Acquire) || Instant::now() < due {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&piece).is_err() {
            return;
        }
    }
}
