//! Which connections there are: a bounded number, fewer for each address, and a connection that waits for a request gives
//! way to a new one. So a program that opens connections and leaves them alone keeps nobody out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// All connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all_max: usize,
    of_peer_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    connections: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    /// Since when it waits for a request; none while one is answered.
    idle_since: Option<Instant>,
    give_way: CancellationToken,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    id: u64,
    give_way: CancellationToken,
}

impl Slots {
    /// Room for so many connections, and for so many from one address.
    pub fn new(all_max: usize, of_peer_max: usize) -> Self {
        Self(Arc::new(Inner {
            all_max: all_max.max(1),
            of_peer_max: of_peer_max.max(1),
            taken: Mutex::default(),
        }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address. Where there is none, the connection that has waited longest for a request
    /// gives way: one from the same address where that address has its share, else from any. None when all are at work.
    pub fn take(&self, peer: IpAddr) -> Option<Slot> {
        let mut taken = self.taken();
        let of_peer = taken
            .connections
            .values()
            .filter(|entry| entry.peer == peer)
            .count();
        if of_peer >= self.0.of_peer_max {
            taken.make_room(|entry| entry.peer == peer)?;
        } else if taken.connections.len() >= self.0.all_max {
            taken.make_room(|_| true)?;
        }
        let id = taken.next;
        taken.next += 1;
        let give_way = CancellationToken::new();
        let entry = Entry {
            peer,
            idle_since: Some(Instant::now()),
            give_way: give_way.clone(),
        };
        taken.connections.insert(id, entry);
        Some(Slot {
            slots: self.clone(),
            id,
            give_way,
        })
    }

    /// How many connections there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.taken().connections.len()
    }
}

impl Taken {
    fn make_room(&mut self, may_go: impl Fn(&Entry) -> bool) -> Option<()> {
        let idle = self.connections.iter().filter(|(_, entry)| may_go(entry));
        let longest = idle
            .filter_map(|(id, entry)| Some((entry.idle_since?, *id)))
            .min()?;
        let entry = self.connections.remove(&longest.1)?;
        entry.give_way.cancel();
        Some(())
    }
}

impl Slot {
    /// Resolves when the connection has to be closed for a new one.
    pub async fn has_to_give_way(&self) {
        self.give_way.cancelled().await;
    }

    /// A request is answered, until the result is dropped. A connection answers one at a time.
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
        if let Some(entry) = self.taken().connections.get_mut(&id) {
            entry.idle_since = since;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken().connections.remove(&self.id);
    }
}

/// While this is there, a connection does not give way.
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
    fn the_longest_idle_connection_gives_way_and_a_busy_one_does_not() {
        let slots = Slots::new(3, 3);
        let [first, second, third] = [1, 1, 2].map(|number| slots.take(peer(number)).unwrap());
        let working = first.busy();
        let _fourth = slots.take(peer(3)).unwrap();
        assert!(second.give_way.is_cancelled() && !third.give_way.is_cancelled());
        let _at_work = third.busy();
        drop(working);
        let _fifth = slots.take(peer(3)).unwrap();
        assert_eq!(slots.count(), 3);
        assert!(!first.give_way.is_cancelled(), "it was at work until just now");
    }

    #[test]
    fn one_address_has_a_share_and_uses_up_no_other() {
        let slots = Slots::new(3, 2);
        let own = [(); 2].map(|()| slots.take(peer(1)).unwrap());
        let busy = own.each_ref().map(Slot::busy);
        assert!(slots.take(peer(1)).is_none());
        let other = slots.take(peer(2)).unwrap();
        let _busy = other.busy();
        assert!(slots.take(peer(3)).is_none(), "all are at work");
        drop(busy);
        assert!(slots.take(peer(1)).is_some());
        assert!(!other.give_way.is_cancelled());
    }
}
