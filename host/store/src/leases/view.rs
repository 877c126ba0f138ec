//! The hosts and leases at one time, and which host should run a plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use crate::lock::LockError;
use lantern_model::batch::Timestamp;
use lantern_trust::private_files;

/// This host among those of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Identifies the process.
    pub(crate) id: String,
    /// Identifies the data directory.
    pub(crate) directory: String,
    /// A name for people.
    pub name: String,
    /// The URL of its API, for the other hosts.
    pub url: String,
}

impl NodeConfig {
    /// This process as a host with this name and URL.
    pub fn new(name: String, url: String) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            directory: String::new(),
            name,
            url,
        }
    }

    /// Reads the identifier of the data directory, or creates it. The directory is locked.
    pub(crate) fn identify(&mut self, dir: &Path) -> Result<(), LockError> {
        let secret = private_files::load_or_create_secret(&dir.join(NODE_FILE));
        let secret = secret.map_err(|source| LockError::Unsafe { source })?;
        self.directory = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(())
    }
}

/// File in the data directory with its identifier among several hosts.
const NODE_FILE: &str = "node.id";

/// A host of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Identifies the process.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The URL of its API.
    pub url: String,
    /// Its version of Lantern.
    pub version: String,
    /// Start of the process, in microseconds since 1970.
    pub started_at: i64,
    /// Whether it has renewed its leases in time.
    pub is_alive: bool,
    /// Time since its leases expired, in milliseconds; negative while it is alive.
    pub expired_for_ms: i64,
    /// Whether it stops and claims nothing.
    pub is_draining: bool,
    /// The plugins whose active versions it has loaded.
    pub ready: BTreeSet<String>,
    /// Its last report, a JSON array.
    pub report: String,
}

/// The lease of a plugin or a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The host; none after it released the lease.
    pub node: Option<String>,
    /// How often the lease was claimed.
    pub term: u64,
    /// When it was claimed or released last, in microseconds since 1970.
    pub changed_at: i64,
}

/// The hosts and leases at one time, as one host sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// This host.
    pub me: String,
    /// All hosts that have not been removed, by identifier.
    pub nodes: BTreeMap<String, Node>,
    /// All leases, by plugin or job.
    pub leases: BTreeMap<String, Lease>,
    /// The plugins that have an active version.
    pub active: BTreeSet<String>,
    /// Changes when a plugin's active version, pause or settings change.
    pub catalog: String,
    /// Changes when a token is created or revoked.
    pub tokens: String,
    /// Why this host holds no lease, if it cannot renew them.
    pub problem: Option<String>,
    /// Until when this host may trust its leases; none if it holds none.
    pub(super) trusted_until: Option<Instant>,
}

impl LeaseView {
    /// The term of a lease that this host holds.
    pub fn held(&self, subject: &str) -> Option<u64> {
        let lease = self.leases.get(subject)?;
        let is_trusted = self.trusted_until.is_some_and(|until| Instant::now() < until);
        (is_trusted && lease.node.as_deref() == Some(&self.me)).then_some(lease.term)
    }

    /// The living host that holds a lease.
    pub fn owner(&self, subject: &str) -> Option<&Node> {
        let node = self.leases.get(subject)?.node.as_ref()?;
        self.nodes.get(node).filter(|node| node.is_alive)
    }

    /// How long an active plugin has had no living host, in milliseconds; none if it has one.
    pub fn unowned_for_ms(&self, plugin: &str) -> Option<i64> {
        let lease = self.leases.get(plugin)?;
        if !self.active.contains(plugin) || self.owner(plugin).is_some() {
            return None;
        }
        let last = lease.node.as_ref().and_then(|node| self.nodes.get(node));
        let released = || Timestamp::now().0.saturating_sub(lease.changed_at) / 1_000;
        Some(last.map_or_else(released, |node| node.expired_for_ms))
    }

    /// Until when this host may trust its leases.
    pub fn trusted_until(&self) -> Option<Instant> {
        self.trusted_until
    }

    /// The host that should run a plugin of this host instead; none if this host is the first choice.
    pub fn destination(&self, plugin: &str) -> Option<&Node> {
        self.held(plugin)?;
        self.first_choice(plugin).filter(|choice| choice.id != self.me)
    }

    /// The host that should run a plugin if none does: the hosts that can run it are ordered by a hash of both names, so that
    /// all hosts agree without a message and each host is the first choice of an equal share.
    pub(super) fn first_choice(&self, subject: &str) -> Option<&Node> {
        let is_job = subject.starts_with('#');
        let candidates = self
            .nodes
            .values()
            .filter(|node| node.is_alive && !node.is_draining && (is_job || node.ready.contains(subject)));
        candidates.max_by_key(|node| weight(subject, &node.id))
    }
}

/// The weight of a host for a subject in rendezvous hashing.
fn weight(subject: &str, node: &str) -> [u8; 8] {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(format!("{subject}\n{node}"));
    let mut weight = [0; 8];
    weight.copy_from_slice(&digest[..8]);
    weight
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(id: &str, ready: &[&str]) -> (String, Node) {
        let node = Node {
            id: id.to_owned(),
            name: id.to_owned(),
            url: String::new(),
            version: String::new(),
            started_at: 0,
            is_alive: true,
            expired_for_ms: -1,
            is_draining: false,
            ready: ready.iter().map(|name| (*name).to_owned()).collect(),
            report: String::new(),
        };
        (id.to_owned(), node)
    }

    fn view(nodes: impl IntoIterator<Item = (String, Node)>) -> LeaseView {
        LeaseView {
            me: "a".to_owned(),
            nodes: nodes.into_iter().collect(),
            ..LeaseView::default()
        }
    }

    #[test]
    fn only_a_host_that_can_run_a_plugin_is_its_first_choice() {
        let mut view = view([node("a", &["x"]), node("b", &["x", "y"]), node("c", &["y"])]);
        for subject in ["x", "y"] {
            let choice = view.first_choice(subject).unwrap();
            assert!(choice.ready.contains(subject), "{subject}: {}", choice.id);
        }
        assert_eq!(view.first_choice("z"), None);
        view.nodes.get_mut("a").unwrap().is_alive = false;
        assert_eq!(view.first_choice("x").unwrap().id, "b");
        view.nodes.get_mut("b").unwrap().is_draining = true;
        assert_eq!(view.first_choice("x"), None);
        assert_eq!(view.first_choice("#jobs").unwrap().id, "c", "any host does jobs");
    }

    #[test]
    fn each_host_is_the_first_choice_of_a_share_and_a_new_host_moves_only_its_own() {
        let plugins: Vec<String> = (0..300).map(|n| format!("plugin-{n}")).collect();
        let names: Vec<&str> = plugins.iter().map(String::as_str).collect();
        let two = view([node("a", &names), node("b", &names)]);
        let three = view([node("a", &names), node("b", &names), node("c", &names)]);
        let mut moved = 0;
        for plugin in &names {
            let (before, after) = (
                two.first_choice(plugin).unwrap(),
                three.first_choice(plugin).unwrap(),
            );
            if before.id != after.id {
                assert_eq!(after.id, "c", "{plugin}");
                moved += 1;
            }
        }
        assert!((60..=140).contains(&moved), "{moved} of 300 moved");
    }

    #[test]
    fn a_lease_is_held_only_while_the_host_may_trust_it() {
        let mut view = view([node("a", &["x"])]);
        let lease = Lease {
            node: Some("a".to_owned()),
            term: 4,
            changed_at: 0,
        };
        view.leases.insert("x".to_owned(), lease);
        assert_eq!(view.held("x"), None);
        view.trusted_until = Some(Instant::now() + Duration::from_secs(60));
        assert_eq!(view.held("x"), Some(4));
        view.trusted_until = Instant::now().checked_sub(Duration::from_millis(1));
        assert_eq!(view.held("x"), None);
    }
}
