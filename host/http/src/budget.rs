//! Bounds the memory of responses that clients have not read yet. Regardless of the number of clients and their speed,
//! pending responses hold at most the setting `http.answer_memory`, and those of one client at most half of it. Small
//! responses are not counted, because the number of connections bounds them.
//!
//! A handler whose response may be large takes a `Room` before it reads from the database. The gate holds the
//! reservation until the body is sent.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Default memory for all responses.
pub const ANSWER_BYTES_DEFAULT: u64 = 32 << 20;

/// Size of a page of rows; the reader ends a page after the row that exceeds it.
pub const PAGE_BYTES: usize = 8 << 20;

/// Responses up to this size are not counted; larger ones are sent in pieces of this size.
pub const PIECE_BYTES: usize = 64 << 10;

/// Granularity of reservations in bytes.
const UNIT: usize = 1 << 10;

/// A client: a token, or an address for clients without a token. All loopback addresses are one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The token with this name.
    Token(String),
    /// No token.
    Address(IpAddr),
    /// No token and no known address.
    Unknown,
}

/// Remote address of a connection; the server adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// The address for counting: all of loopback is one, because a local program can choose any loopback address; so is
    /// an IPv6 /64 network.
    pub fn counted(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V4(address) if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
            // Providers assign at least a /64 network.
            IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
            address => address,
        }
    }
}

impl Client {
    /// The client of a request: its token, else its address.
    pub fn of(token: Option<&str>, peer: Option<&Peer>) -> Self {
        match (token, peer) {
            (Some(name), _) => Self::Token(name.to_owned()),
            (None, Some(peer)) => Self::Address(peer.counted()),
            (None, None) => Self::Unknown,
        }
    }
}

/// A bounded resource of which each client can hold at most a share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
    of_client: u32,
    /// Clients that hold a share or wait for one.
    clients: Mutex<HashMap<Client, Weak<Semaphore>>>,
}

/// The part that a client holds; released on drop.
#[derive(Debug)]
pub struct Share {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl Shares {
    /// `all` permits, of which one client can hold `of_client`.
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

    /// Takes permits for a client; none if they are not available within `wait`.
    pub async fn take(&self, client: &Client, number: u32, wait: Duration) -> Option<Share> {
        let own = self.of_client(client);
        let both = async {
            let own = own.acquire_many_owned(number).await.ok()?;
            let all = Arc::clone(&self.0.all).acquire_many_owned(number).await.ok()?;
            Some(Share { own, all })
        };
        tokio::time::timeout(wait, both).await.ok().flatten()
    }

    /// Like [`Self::take`], without waiting.
    pub fn try_take(&self, client: &Client, number: u32) -> Option<Share> {
        let own = self.of_client(client).try_acquire_many_owned(number).ok()?;
        let all = Arc::clone(&self.0.all).try_acquire_many_owned(number).ok()?;
        Some(Share { own, all })
    }
}

/// The memory for responses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget(Shares);

/// Memory reserved for one response; released on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    client: Client,
    share: Share,
}

impl Budget {
    /// A budget in bytes; one client can hold half of it.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX).max(2);
        Self(Shares::new(units as usize, units / 2))
    }

    /// Unreserved bytes.
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

    /// Reserves memory for a client; none if it is not available within `wait`. A larger size than the share of a client
    /// is reserved as the share, so that one such response is possible.
    pub async fn reserve(&self, client: &Client, bytes: usize, wait: Duration) -> Option<Reservation> {
        let share = self.0.take(client, self.units(bytes), wait).await?;
        Some(self.reservation(client, share))
    }

    /// Like [`Self::reserve`], without waiting.
    pub fn try_reserve(&self, client: &Client, bytes: usize) -> Option<Reservation> {
        let share = self.0.try_take(client, self.units(bytes))?;
        Some(self.reservation(client, share))
    }
}

impl Reservation {
    /// Releases the part beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let Share { own, all } = &mut self.share;
        let spare = own.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(own.split(spare));
        drop(all.split(spare));
    }

    /// Reserved bytes.
    pub fn bytes(&self) -> usize {
        self.share.own.num_permits() * UNIT
    }

    /// Extends the reservation to `bytes`. Returns whether the budget had room for it. More than the share of a client is
    /// reserved as the share.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let wanted = self.budget.units(bytes) as usize;
        let missing = wanted.saturating_sub(self.share.own.num_permits()) * UNIT;
        if missing == 0 {
            return true;
        }
        let Some(more) = self.budget.try_reserve(&self.client, missing) else {
            return false;
        };
        self.share.own.merge(more.share.own);
        self.share.all.merge(more.share.all);
        true
    }

    /// Changes the reservation to `bytes`. If the budget has no room for more, the reservation stays as it is: the
    /// response already exists.
    pub fn resize(&mut self, bytes: usize) {
        self.shrink(bytes);
        self.grow(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> Client {
        Client::Address(IpAddr::from([10, 0, 0, number]))
    }

    #[tokio::test]
    async fn one_client_can_hold_half_of_the_budget() {
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
    async fn reservations_shrink_and_grow() {
        let budget = Budget::new(1 << 20);
        // More than the share of one client is reserved as the share.
        let mut held = budget.try_reserve(&client(1), 10 << 20).unwrap();
        assert_eq!(budget.free(), 512 << 10);
        held.shrink(100 << 10);
        assert_eq!(budget.free(), (1 << 20) - (100 << 10));
        held.resize(200 << 10);
        assert_eq!(budget.free(), (1 << 20) - (200 << 10));
        assert!(held.grow(300 << 10) && held.grow(100 << 10));
        assert_eq!(budget.free(), (1 << 20) - (300 << 10));
        let other = budget.try_reserve(&client(2), 512 << 10).unwrap();
        let another = budget.try_reserve(&client(3), 150 << 10).unwrap();
        assert!(!held.grow(400 << 10), "the budget has no room");
        drop((other, another));
        held.shrink(0);
        assert_eq!(budget.free(), 1 << 20);
    }

    #[test]
    fn loopback_addresses_count_as_one_client() {
        let counted = |text: &str| Peer(text.parse().unwrap()).counted().to_string();
        assert_eq!(counted("127.9.9.9"), "127.0.0.1");
        assert_eq!(counted("::1"), "127.0.0.1");
        assert_eq!(counted("::ffff:127.0.0.2"), "127.0.0.1");
        assert_eq!(counted("10.1.2.3"), "10.1.2.3");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
