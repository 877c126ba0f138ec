//! One bound on the memory that answers take until clients have read them. Whatever the number of clients and however
//! slowly they read, answers in progress hold no more than the setting `http.answer_memory`, and one client no more than
//! half of it. Answers of a few kilobytes are not counted: the number of connections bounds them.
//!
//! A handler whose answer may be large takes a `Room` before it reads from the database. The gate keeps what is left of
//! it until the body is sent.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for all answers when nothing is set.
pub const ANSWER_BYTES_DEFAULT: u64 = 32 << 20;

/// What a page of rows may have: the reader ends it behind the row that passes this.
pub const PAGE_BYTES: usize = 8 << 20;

/// Answers up to this size are not counted, and larger ones are sent in pieces of it.
pub const PIECE_BYTES: usize = 64 << 10;

/// The unit of the count.
const UNIT: usize = 1 << 10;

/// The client that holds memory: a token, or an address for clients without one. All of loopback is one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The token with this name.
    Token(String),
    /// No token.
    Address(IpAddr),
    /// No token, and a connection of which nothing is known.
    Unknown,
}

/// The address that a connection comes from, as the server leaves it with each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// The address by which connections are counted: a program on this machine can choose any of loopback.
    pub fn counted(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V4(address) if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            // The smallest network that a provider hands out.
            IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
            address => address,
        }
    }
}

impl Client {
    /// The holder of the token with this name, else whoever is at the address.
    pub fn of(token: Option<&str>, peer: Option<&Peer>) -> Self {
        match (token, peer) {
            (Some(name), _) => Self::Token(name.to_owned()),
            (None, Some(peer)) => Self::Address(peer.counted()),
            (None, None) => Self::Unknown,
        }
    }
}

/// Something that there is a number of, of which each client has a share at most. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    of_client: u32,
    /// Clients that hold or wait for some.
    clients: Mutex<HashMap<Client, Weak<Semaphore>>>,
}

/// What a client holds. It is given back when this is dropped.
#[derive(Debug)]
pub struct Share {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Shares {
    /// So many, and so many of them for one client.
    pub fn new(all: usize, of_client: u32) -> Self {
        Self(Arc::new(Inner {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            of_client,
            clients: Mutex::default(),
        }))
    }

    fn of_client(&self, client: &Client) -> Arc<Semaphore> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(client).and_then(Weak::upgrade) {
            return known;
        }
        clients.retain(|_, known| known.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.0.of_client as usize));
        clients.insert(client.clone(), Arc::downgrade(&own));
        own
    }

    /// Takes some for a client, when there are enough in time.
    pub async fn take(&self, client: &Client, number: u32, wait: Duration) -> Option<Share> {
        let own = self.of_client(client);
        let both = async {
            let own = own.acquire_many_owned(number).await.ok()?;
            let all = Arc::clone(&self.0.all).acquire_many_owned(number).await.ok()?;
            Some(Share { own, all })
        };
        tokio::time::timeout(wait, both).await.ok().flatten()
    }

    /// The same without waiting.
    pub fn try_take(&self, client: &Client, number: u32) -> Option<Share> {
        let own = self.of_client(client).try_acquire_many_owned(number).ok()?;
        let all = Arc::clone(&self.0.all).try_acquire_many_owned(number).ok()?;
        Some(Share { own, all })
    }
}

/// The memory for answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Shares);

/// Memory that is counted for one answer. It is given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    client: Client,
    share: Share,
}

impl Budget {
    /// So many bytes, half of them for one client.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX).max(2);
        Self(Shares::new(units as usize, units / 2))
    }

    /// Bytes that are not held by an answer.
    #[cfg(test)]
    fn free(&self) -> usize {
        self.0.0.all.available_permits() * UNIT
    }

    fn units(&self, bytes: usize) -> u32 {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        units.min(self.0.0.of_client)
    }

    fn reservation(&self, client: &Client, share: Share) -> Reservation {
        Reservation {
            budget: self.clone(),
            client: client.clone(),
            share,
        }
    }

    /// Counts bytes for a client, when there is room in time. More than a client's share is counted as the share: one such
    /// answer has to be possible.
    pub async fn reserve(&self, client: &Client, bytes: usize, wait: Duration) -> Option<Reservation> {
        let share = self.0.take(client, self.units(bytes), wait).await?;
        Some(self.reservation(client, share))
    }

    /// The same without waiting.
    pub fn try_reserve(&self, client: &Client, bytes: usize) -> Option<Reservation> {
        let share = self.0.try_take(client, self.units(bytes))?;
        Some(self.reservation(client, share))
    }
}

impl Reservation {
    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let Share { own, all } = &mut self.share;
        let spare = own.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(own.split(spare));
        drop(all.split(spare));
    }

    /// Counts `bytes` from now on. Where there is no room for more, it remains what it was: the answer is there already.
    pub fn resize(&mut self, bytes: usize) {
        self.shrink(bytes);
        let missing = bytes.saturating_sub(self.share.own.num_permits() * UNIT);
        if missing > 0
            && let Some(more) = self.budget.try_reserve(&self.client, missing)
        {
            self.share.own.merge(more.share.own);
            self.share.all.merge(more.share.all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Client {
        Client::Address(IpAddr::from([10, 0, 0, number]))
    }

    #[tokio::test]
    async fn one_client_holds_half_and_all_together_the_whole() {
        let budget = Budget::new(1 << 20);
        let first = budget.try_reserve(&client(1), 300 << 10).unwrap();
        assert!(budget.try_reserve(&client(1), 300 << 10).is_none());
        let second = budget.try_reserve(&client(2), 512 << 10).unwrap();
        assert!(budget.try_reserve(&client(3), 300 << 10).is_none());
        let third = client(3);
        let waiting = budget.reserve(&third, 300 << 10, Duration::from_secs(10));
        drop(first);
        let third = waiting.await.unwrap();
        assert_eq!(budget.free(), (1 << 20) - (812 << 10));
        drop((second, third));
        assert_eq!(budget.free(), 1 << 20);
    }

    #[tokio::test]
    async fn a_reservation_shrinks_as_its_answer_is_sent() {
        let budget = Budget::new(1 << 20);
        // More than the share of one client counts as the share.
        let mut held = budget.try_reserve(&client(1), 10 << 20).unwrap();
        assert_eq!(budget.free(), 512 << 10);
        held.shrink(100 << 10);
        assert_eq!(budget.free(), (1 << 20) - (100 << 10));
        held.resize(200 << 10);
        assert_eq!(budget.free(), (1 << 20) - (200 << 10));
        held.shrink(0);
        assert_eq!(budget.free(), 1 << 20);
    }

    #[test]
    fn all_of_loopback_is_one_client() {
        let counted = |text: &str| Peer(text.parse().unwrap()).counted().to_string();
        assert_eq!(counted("127.9.9.9"), "127.0.0.1");
        assert_eq!(counted("::1"), "127.0.0.1");
        assert_eq!(counted("::ffff:127.0.0.2"), "127.0.0.1");
        assert_eq!(counted("10.1.2.3"), "10.1.2.3");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
