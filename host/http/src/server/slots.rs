//! Slots for a bounded number of connections, in total and per address. A new connection replaces the one that has been
//! idle longest, so idle connections do not lock out other clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// The slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all_max: usize,
    of_peer_max: usize,
    in_use: Mutex<InUse>,
}

#[derive(Debug, Default)]
struct InUse {
    next: u64,
    connections: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    /// Start of the idle time; none during a request.
    idle_since: Option<Instant>,
    close: CancellationToken,
}

/// The slot of a connection; released on drop.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    id: u64,
    close: CancellationToken,
}

impl Slots {
    /// Slots for `all_max` connections, at most `of_peer_max` from one address.
    pub fn new(all_max: usize, of_peer_max: usize) -> Self {
        Self(Arc::new(Inner {
            all_max: all_max.max(1),
            of_peer_max: of_peer_max.max(1),
            in_use: Mutex::default(),
        }))
    }

    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.0.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a connection from this address. If none is free, the connection that has been idle longest is
    /// closed: one from the same address if that address has reached its limit, else from any. None if all are busy.
    pub fn take(&self, peer: IpAddr) -> Option<Slot> {
        let mut in_use = self.in_use();
        let of_peer = in_use
            .connections
            .values()
            .filter(|entry| entry.peer == peer)
            .count();
        if of_peer >= self.0.of_peer_max {
            in_use.make_room(|entry| entry.peer == peer)?;
        } else if in_use.connections.len() >= self.0.all_max {
            in_use.make_room(|_| true)?;
        }
        let id = in_use.next;
        in_use.next += 1;
        let close = CancellationToken::new();
        let entry = Entry {
            peer,
            idle_since: Some(Instant::now()),
            close: close.clone(),
        };
        in_use.connections.insert(id, entry);
        Some(Slot {
            slots: self.clone(),
            id,
            close,
        })
    }

    /// Number of connections.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.in_use().connections.len()
    }
}

impl InUse {
    fn make_room(&mut self, candidate: impl Fn(&Entry) -> bool) -> Option<()> {
        let idle = self.connections.iter().filter(|(_, entry)| candidate(entry));
        let longest = idle
            .filter_map(|(id, entry)| Some((entry.idle_since?, *id)))
            .min()?;
        let entry = self.connections.remove(&longest.1)?;
        entry.close.cancel();
        Some(())
    }
}

impl Slot {
    /// Resolves when the connection must be closed for a new one.
    pub async fn must_close(&self) {
        self.close.cancelled().await;
    }

    /// Marks the connection as busy until the result is dropped. A connection serves one request at a time.
    pub fn busy(&self) -> Busy {
        self.slots.set_idle(self.id, None);
        Busy {
            slots: self.slots.clone(),
            id: self.id,
        }
    }
}

impl Slots {
    fn set_idle(&self, id: u64, since: Option<Instant>) {
        if let Some(entry) = self.in_use().connections.get_mut(&id) {
            entry.idle_since = since;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.in_use().connections.remove(&self.id);
    }
}

/// Marks a connection as busy, which protects it from being closed.
#[derive(Debug)]
pub struct Busy {
    slots: Slots,
    id: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.slots.set_idle(self.id, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn a_new_connection_replaces_the_longest_idle_one() {
        let slots = Slots::new(3, 3);
        let [first, second, third] = [1, 1, 2].map(|number| slots.take(peer(number)).unwrap());
        let working = first.busy();
        let _fourth = slots.take(peer(3)).unwrap();
        assert!(second.close.is_cancelled() && !third.close.is_cancelled());
        let _at_work = third.busy();
        drop(working);
        let _fifth = slots.take(peer(3)).unwrap();
        assert_eq!(slots.count(), 3);
        assert!(!first.close.is_cancelled(), "it was busy until now");
    }

    #[test]
    fn connections_per_address_are_limited() {
        let slots = Slots::new(3, 2);
        let own = [(); 2].map(|()| slots.take(peer(1)).unwrap());
        let busy = own.each_ref().map(Slot::busy);
        assert!(slots.take(peer(1)).is_none());
        let other = slots.take(peer(2)).unwrap();
        let _busy = other.busy();
        assert!(slots.take(peer(3)).is_none(), "all are busy");
        drop(busy);
        assert!(slots.take(peer(1)).is_some());
        assert!(!other.close.is_cancelled());
    }
}
