//! Starts, queries and kills the real program in a separate process. Drop kills it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Ends a test whose host does not end.
const TERMINATION_LIMIT: Duration = Duration::from_secs(60);

pub struct Host {
    child: Child,
    address: String,
}

/// Returns the folder of the built plugins.
pub fn plugins() -> PathBuf {
    let folder = std::env::var_os("LANTERN_PLUGINS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    );
    assert!(
        folder.join("obs-events.wasm").is_file(),
        "there are no plugins in {}: `cargo xtask plugins --dev` builds them",
        folder.display()
    );
    folder
}

/// Returns a folder with copies of some of the built plugins.
pub fn plugin_folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let file = format!("{name}.wasm");
        std::fs::copy(plugins().join(&file), folder.path().join(&file)).unwrap();
    }
    folder
}

impl Host {
    /// Returns a command that serves from `dir` on a free port; a test can change it before [`Host::spawn`].
    pub fn command(dir: &Path, nats: &str, plugins: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--nats", nats, "--data-dir"])
            .arg(dir)
            .arg("--plugin-dir")
            .arg(plugins)
            .env("LANTERN__STREAMS__CREATE", "true")
            .env("LANTERN__LOG__FILTER", "warn")
            .stdout(Stdio::piped());
        command
    }

    /// Serves from `dir`, and returns once the host reports its address.
    pub fn start(dir: &Path, nats: &str, plugins: &Path) -> Self {
        Self::spawn(Self::command(dir, nats, plugins))
    }

    /// Starts the command and waits until the host reports its address.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some((_, rest)) = line.split_once("http://") else {
            panic!("the host did not come up: {line:?}, {:?}", child.wait());
        };
        let address = rest.split(',').next().unwrap().trim().to_owned();
        Self { child, address }
    }

    /// Sends a GET; returns status and body.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            String::from_utf8_lossy(&join_chunks(body)).into_owned()
        } else {
            String::from_utf8_lossy(body).into_owned()
        };
        Ok((status.unwrap_or(0), body))
    }

    /// Sends a GET; returns the JSON body.
    pub fn json(&self, path: &str) -> Value {
        let (_, body) = self.get(path).unwrap();
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Returns the projection of one source.
    pub fn projection(&self, source: &str) -> Value {
        let all = self.json("/api/v1/projections");
        let found = all
            .as_array()
            .unwrap()
            .iter()
            .find(|projection| projection["source"] == source);
        found
            .unwrap_or_else(|| panic!("no source {source} in {all}"))
            .clone()
    }

    /// Returns one check of `/readyz`: whether it is healthy, and the detail.
    pub fn check(&self, name: &str) -> Option<(bool, String)> {
        let ready = self.json("/readyz");
        let check = ready["checks"]
            .as_array()?
            .iter()
            .find(|check| check["name"] == name)?
            .clone();
        Some((check["ok"].as_bool()?, check["detail"].as_str()?.to_owned()))
    }

    /// Waits until `condition` holds, for at most `limit`.
    pub fn wait(&self, what: &str, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !condition(self) {
            if Instant::now() > deadline {
                let state = self
                    .get("/readyz")
                    .map_or_else(|error| error.to_string(), |(_, body)| body);
                panic!("not within {limit:?}: {what}; /readyz: {state}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status once the process has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + TERMINATION_LIMIT;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the host does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The body of a response that the server sent in pieces, each after a line with its size in hexadecimal digits.
fn join_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let chunk = &body[end + 2..];
        if size == 0 || chunk.len() < size + 2 {
            break;
        }
        joined.extend_from_slice(&chunk[..size]);
        body = &chunk[size + 2..];
    }
    joined
}

impl Drop for Host {
    fn drop(&mut self) {
        // The process may have exited already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end; returns the exit code, and standard output followed by standard error.
pub fn output(command: &mut Command) -> (i32, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let code = output.status.code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// Runs a command for the host with this data directory; returns the exit code and the output.
pub fn lantern(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command.args(arguments).arg("--data-dir").arg(dir).env_clear();
    output(&mut command)
}

/// Runs `lantern check`; returns the exit code and the output.
pub fn check(dir: &Path) -> (i32, String) {
    lantern(dir, &["check"])
}

/// Runs a command for the host with this data directory. It must succeed; returns the output.
#[track_caller]
pub fn succeeds(dir: &Path, arguments: &[&str]) -> String {
    let (code, text) = lantern(dir, arguments);
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}
