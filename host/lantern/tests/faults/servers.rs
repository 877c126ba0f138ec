//! The broker of a run: one server, or a cluster of three.

use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use super::cluster::Cluster;
use super::nats::{NatsServer, binary, raw};
use super::setup::Setup;
use super::world::run;

pub enum Servers {
    Single(NatsServer),
    Cluster(Cluster),
}

impl Servers {
    pub fn start(setup: Setup) -> Self {
        match setup {
            Setup::Single | Setup::Retention => Self::Single(NatsServer::start()),
            Setup::Cluster => Self::Cluster(run(Cluster::start(binary()))),
        }
    }

    /// Returns the URLs of all servers, separated by commas.
    pub fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// Ends a server, with SIGKILL or gracefully. A single server ignores the number.
    pub fn end(&mut self, number: usize, kill: bool) {
        match self {
            Self::Single(server) if kill => server.kill(),
            Self::Single(server) => server.stop(),
            Self::Cluster(cluster) => cluster.end(number, if kill { Signal::KILL } else { Signal::TERM }),
        }
    }

    /// Starts the server that has ended.
    pub fn restart(&mut self, number: usize) {
        match self {
            Self::Single(server) => server.restart(),
            Self::Cluster(cluster) => cluster.restart(number),
        }
    }

    /// Restarts the servers of a cluster one after another.
    pub fn restart_each(&mut self, stream: &str) {
        if let Self::Cluster(cluster) = self {
            run(cluster.restart_each(stream));
        }
    }

    /// Freezes a server (`Signal::STOP`), or ends the freeze (`Signal::CONT`).
    pub fn signal(&self, number: usize, signal: Signal) {
        match self {
            Self::Single(server) if signal == Signal::STOP => server.freeze(),
            Self::Single(server) => server.thaw(),
            Self::Cluster(cluster) => cluster.signal(number, signal),
        }
    }

    /// Opens a bare connection.
    pub fn raw(&self) -> Option<TcpStream> {
        let port = match self {
            Self::Single(server) => server.port(),
            Self::Cluster(cluster) => cluster.port(0),
        };
        raw(port).ok()
    }

    /// Returns the folder of a single server's store.
    pub fn store(&self) -> Option<&Path> {
        match self {
            Self::Single(server) => Some(server.folder()),
            Self::Cluster(_) => None,
        }
    }
}
