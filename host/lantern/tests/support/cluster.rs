//! A cluster of three real servers on the loopback interface, on free ports, each with its own store. Drop kills the
//! servers and removes their stores.

#![allow(dead_code, reason = "each test uses its own part of the harness")]
#![allow(clippy::unwrap_used, reason = "a harness fails like the tests that use it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rustix::process::Signal;

use super::nats::{eventually, greets, signal};

/// An election takes up to nine seconds, and on a busy machine there may be several.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Cluster {
    binary: PathBuf,
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    port: u16,
    routes_port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts three servers, and returns once JetStream has a leader.
    pub async fn start(binary: PathBuf) -> Self {
        let ports = free_ports(6);
        let nodes = (0..3)
            .map(|index| Node {
                name: format!("n{}", index + 1),
                port: ports[index],
                routes_port: ports[index + 3],
                child: None,
            })
            .collect();
        let mut cluster = Self {
            binary,
            folder: tempfile::tempdir().unwrap(),
            nodes,
        };
        for index in 0..3 {
            cluster.spawn(index);
        }
        for index in 0..3 {
            cluster.wait_for_greeting(index);
        }
        let context = cluster.jetstream().await;
        eventually("JetStream is available", LIMIT, async || {
            context.query_account().await.is_ok()
        })
        .await;
        cluster
    }

    fn spawn(&mut self, index: usize) {
        let routes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("\"nats://127.0.0.1:{}\"", node.routes_port))
            .collect();
        let node = &self.nodes[index];
        let folder = self.folder.path().join(&node.name);
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{}\"\n\
             jetstream {{ store_dir: {:?}, max_memory_store: 64MB, max_file_store: 1GB, sync_interval: always }}\n\
             cluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
            node.name,
            node.port,
            folder.join("js").display().to_string(),
            node.routes_port,
            routes.join(", "),
        );
        let config = folder.join("nats.conf");
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("nats.log"))
            .unwrap();
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.nodes[index].child = Some(child);
    }

    fn wait_for_greeting(&self, index: usize) {
        let deadline = Instant::now() + LIMIT;
        while !greets(self.nodes[index].port) {
            assert!(
                Instant::now() < deadline,
                "server {} does not start: {}",
                self.nodes[index].name,
                self.log(index)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self, index: usize) -> String {
        let file = self.folder.path().join(&self.nodes[index].name).join("nats.log");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Restarts one server after another, each once all replicas of `stream` are current again.
    pub async fn restart_each(&mut self, stream: &str) {
        for index in 0..3 {
            self.end(index, Signal::TERM);
            self.restart(index);
            self.wait_until_current(stream).await;
        }
    }

    /// Ends one server with a signal.
    pub fn end(&mut self, index: usize, how: Signal) {
        if let Some(mut child) = self.nodes[index].child.take() {
            signal(&child, how);
            child.wait().unwrap();
        }
    }

    /// Starts a server that has ended, with its store and ports.
    pub fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.wait_for_greeting(index);
    }

    /// Starts the servers that have ended, and ends the freeze of the others.
    pub fn revive(&mut self) {
        for index in 0..3 {
            match self.nodes[index].child {
                Some(_) => self.signal(index, Signal::CONT),
                None => self.restart(index),
            }
        }
    }

    /// The number of the server with this name.
    pub fn index_of(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap()
    }

    /// Sends a signal to one server.
    pub fn signal(&self, index: usize, which: Signal) {
        if let Some(child) = &self.nodes[index].child {
            signal(child, which);
        }
    }

    /// Returns the port of one server.
    pub fn port(&self, index: usize) -> u16 {
        self.nodes[index].port
    }

    /// Waits until `stream` has a leader, and both other replicas are current.
    pub async fn wait_until_current(&self, stream: &str) {
        self.wait_until_replicated(stream, 2).await;
    }

    /// Waits until `stream` has a leader and this number of other replicas, all current.
    pub async fn wait_until_replicated(&self, stream: &str, others: usize) {
        let context = self.jetstream().await;
        eventually("all replicas are current", LIMIT, async || {
            let Ok(stream) = context.get_stream(stream).await else {
                return false;
            };
            stream.cached_info().cluster.as_ref().is_some_and(|cluster| {
                cluster.leader.is_some()
                    && cluster.replicas.len() == others
                    && cluster
                        .replicas
                        .iter()
                        .all(|replica| replica.current && !replica.offline)
            })
        })
        .await;
    }

    /// Returns the URLs of all servers, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("nats://127.0.0.1:{}", node.port))
            .collect();
        urls.join(",")
    }

    /// Returns a JetStream context of a plain client.
    pub async fn jetstream(&self) -> jetstream::Context {
        Self::connect(&self.url()).await
    }

    /// Returns a JetStream context of a plain client, for the URLs of [`Self::url`].
    pub async fn connect(url: &str) -> jetstream::Context {
        let urls: Vec<async_nats::ServerAddr> = url.split(',').map(|url| url.parse().unwrap()).collect();
        // The client leaves a server that is frozen after three pings without an answer.
        let client = async_nats::ConnectOptions::new()
            .ping_interval(Duration::from_secs(1))
            .retry_on_initial_connect()
            .connect(urls)
            .await
            .unwrap();
        jetstream::new(client)
    }

    /// Returns the folder with stores, configurations and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // The process may have exited already.
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

/// Returns distinct free ports.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
