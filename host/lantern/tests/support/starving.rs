//! A line to a broker on which a consumer starves, as after a power failure that damaged its state: deliveries are dropped,
//! while heartbeats claim that the last delivery arrived. Requests and their answers pass.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

const WHOLE: u8 = 0;
const STARVING: u8 = 1;

pub struct StarvingLine {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    mode: AtomicU8,
    /// The number of the last delivery, as the last heartbeat before the starvation named it.
    last: Mutex<String>,
}

impl StarvingLine {
    /// Opens a line to the port of a broker on this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        let state = Arc::clone(&line.state);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                carry(near, far, &state);
            }
        });
        line
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Drops deliveries until a client deletes a consumer.
    pub fn starve(&self) {
        self.state.mode.store(STARVING, Ordering::SeqCst);
    }

    /// Returns the number of the last delivery that a heartbeat named.
    pub fn last_delivery(&self) -> String {
        self.state.last.lock().unwrap().clone()
    }

    pub fn is_whole(&self) -> bool {
        self.state.mode.load(Ordering::SeqCst) == WHOLE
    }
}

fn carry(near: TcpStream, far: TcpStream, state: &Arc<State>) {
    let (requests, to_far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let of_client = Arc::clone(state);
    std::thread::spawn(move || {
        let (mut requests, mut to_far) = (requests, to_far);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = requests.read(&mut buffer) {
            let piece = &buffer[..read];
            if piece.windows(16).any(|window| window == b"CONSUMER.DELETE.") {
                of_client.mode.store(WHOLE, Ordering::SeqCst);
            }
            if to_far.write_all(piece).is_err() {
                break;
            }
        }
        drop(to_far.shutdown(Shutdown::Both));
    });
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        let mut near = near;
        let mut frames = BufReader::new(far);
        while forward(&mut frames, &mut near, &state).is_some() {}
        drop(near.shutdown(Shutdown::Both));
    });
}

/// Forwards one protocol message of the server; `None` at the end.
fn forward(frames: &mut BufReader<TcpStream>, near: &mut TcpStream, state: &State) -> Option<()> {
    let mut line = String::new();
    frames.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let is_message = matches!(fields.first(), Some(&("MSG" | "HMSG")));
    let bytes: usize = match fields.last().filter(|_| is_message) {
        Some(bytes) => bytes.parse().ok()?,
        None => return near.write_all(line.as_bytes()).ok(),
    };
    let mut body = vec![0; bytes + 2];
    frames.read_exact(&mut body).ok()?;
    let is_starving = state.mode.load(Ordering::SeqCst) == STARVING;
    if is_starving && fields.iter().any(|field| field.starts_with("$JS.ACK.")) {
        return Some(());
    }
    let (line, body) = match heartbeat(&body) {
        Some((start, end)) => {
            let mut last = state.last.lock().unwrap();
            if !is_starving {
                *last = String::from_utf8_lossy(&body[start..end]).into_owned();
            }
            let body = [&body[..start], last.as_bytes(), &body[end..]].concat();
            let size = body.len() - 2;
            // A heartbeat has headers and no payload.
            (
                format!("HMSG {} {} {size} {size}\r\n", fields[1], fields[2]),
                body,
            )
        }
        None => (line, body),
    };
    near.write_all(&[line.as_bytes(), &body].concat()).ok()
}

/// Where a heartbeat names the number of the last delivery.
fn heartbeat(body: &[u8]) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"Nats-Last-Consumer: ";
    let start = body.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits = body[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    Some((start, start + digits))
}
