//! Tables that are followed. Each has one reader for all who follow it, woken by commits: it reads what has come once,
//! and each view makes of it what its followers want. Somebody who comes back is first told what came meanwhile, up to
//! a limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ring::{self, Added, Items, Prepared, Read, Reading, View, Wanted};
use crate::budget::{Client, Share, Shares};
use crate::cursor;
use lantern_model::schema::TableName;
use lantern_store::Reader;
use lantern_store::reader::{BEGINNING, Places, ReadError, RowRecord, Shape};

/// Followers at once, of all tables. Each costs a connection with its buffer; the packets are shared.
const FOLLOWERS_MAX: usize = 640;
/// Different selections of one table that are followed at once; each may keep a megabyte.
const VIEWS_MAX: usize = 64;
/// Between two looks at a table into which rows are stored all the time.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Those who wait for the same rows are woken one after the other within this time: hundreds at once would keep the
/// messages waiting that come in meanwhile.
const SPREAD: Duration = Duration::from_millis(180);
/// Parts that it is divided into.
const SPREAD_PARTS: u32 = 90;
/// Rows that one look reads; where more have come, the oldest of them are left out.
const LOOK_ROWS: u32 = 2_000;
/// Rows that somebody who comes back is told of; what is older is left out.
const RESUME_ROWS: u32 = 5_000;
/// Rows that are left out are counted up to here.
const SKIPPED_MAX: u32 = 100_000;
/// How long a connection may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long somebody is told without being asked again for a token.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Time for comparing the rows of one read with all views of a table, divided among them but for a least share. A view
/// whose conditions take longer receives the number of rows that were not compared.
const COMPARE_TIME: Duration = Duration::from_secs(2);
const COMPARE_TIME_OF_VIEW: Duration = Duration::from_millis(50);
/// The same for the rows that one follower has missed; what is left is compared when its turn comes again.
const CATCH_UP_TIME: Duration = Duration::from_millis(200);

/// Bytes of packets that are rendered at once for all views of a table.
const RENDERED_BYTES: usize = 16 << 20;

/// Maximum followers of one client; the rest is reserved for other clients.
const FOLLOWERS_OF_CLIENT_MAX: u32 = 512;

/// Why a table cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("there are as many followers as there may be")]
    Full,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Tables that are followed. Cheap to clone.
#[derive(Clone)]
pub struct Tails(Arc<Inner>);

struct Inner {
    reader: Reader,
    commits: watch::Receiver<u64>,
    stop: CancellationToken,
    tables: Mutex<HashMap<TableName, Arc<Followed>>>,
    followers: Shares,
    /// Bytes of packets that all views keep.
    kept: Arc<AtomicUsize>,
    /// Rows are compared and rendered on blocking threads, one for tables and one for followers that catch up: the threads
    /// of the API answer others meanwhile, and one processor at most is taken by each kind.
    comparing: Arc<Semaphore>,
    catching_up: Arc<Semaphore>,
    /// How many have ever followed.
    joined: AtomicU32,
}

/// A table that somebody follows.
struct Followed {
    shape: Shape,
    told: Mutex<Told>,
}

struct Told {
    /// Up to where all views were told.
    places: Places,
    views: Vec<Arc<View>>,
    ended: bool,
}

impl Followed {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut told = self.told();
        told.ended = true;
        told.views.drain(..).for_each(|view| view.end());
    }
}

impl Tails {
    pub fn new(reader: Reader, commits: watch::Receiver<u64>, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            reader,
            commits,
            stop,
            tables: Mutex::default(),
            followers: Shares::new(FOLLOWERS_MAX, FOLLOWERS_OF_CLIENT_MAX),
            kept: Arc::default(),
            comparing: Arc::new(Semaphore::new(1)),
            catching_up: Arc::new(Semaphore::new(1)),
            joined: AtomicU32::new(0),
        }))
    }

    /// Follows a table: from now on, or from where somebody has heard last.
    pub async fn follow(
        &self,
        shape: Shape,
        wanted: Wanted,
        after: Option<Places>,
        client: &Client,
    ) -> Result<Follower, FollowError> {
        let inner = &self.0;
        let share = inner.followers.try_take(client, 1).ok_or(FollowError::Full)?;
        let places = inner.reader.places(&shape).await?;
        let followed = self.followed(shape, places);
        let (view, reading, joined) = {
            let mut told = followed.told();
            let view = match told.views.iter().find(|view| view.wanted == wanted) {
                Some(view) => Arc::clone(view),
                None if told.views.len() >= VIEWS_MAX => return Err(FollowError::Full),
                None => {
                    let view = Arc::new(View::new(wanted, Arc::clone(&inner.kept)));
                    told.views.push(Arc::clone(&view));
                    view
                }
            };
            let reading = view.begin();
            (view, reading, told.places.clone())
        };
        let missed = after.map(|after| missed(&after, &joined)).unwrap_or_default();
        // Somebody who has missed something goes on from where it was, until it was told.
        let id = match missed.as_slice() {
            [] => format!("id: {}\n", resume_id(&followed.shape, &joined)),
            _ => String::new(),
        };
        Ok(Follower {
            hello: Some(format!("retry: 2000\n{id}\n").into()),
            missed,
            joined,
            gone: Arc::default(),
            changed: view.watch(),
            followed,
            view,
            reading,
            inner: Arc::clone(inner),
            until: Instant::now() + LIFE,
            turn: SPREAD / SPREAD_PARTS * (inner.joined.fetch_add(1, Ordering::Relaxed) % SPREAD_PARTS),
            _share: share,
        })
    }

    /// The table among those that are followed; it begins to be when it is not.
    fn followed(&self, shape: Shape, places: Places) -> Arc<Followed> {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = tables.get(&shape.entry.name)
            && !followed.told().ended
            && followed.shape.entry.description == shape.entry.description
        {
            return Arc::clone(followed);
        }
        let name = shape.entry.name.clone();
        let told = Told {
            places,
            views: Vec::new(),
            ended: false,
        };
        let followed = Arc::new(Followed {
            shape,
            told: Mutex::new(told),
        });
        if let Some(old) = tables.insert(name, Arc::clone(&followed)) {
            old.end();
        }
        tokio::spawn(look(Arc::clone(&self.0), Arc::clone(&followed)));
        followed
    }
}

/// A history, and behind which place up to which other.
type Stretch = (i64, (i64, i64), (i64, i64));

/// The stretches that somebody has missed, history by history.
fn missed(after: &Places, joined: &Places) -> Vec<Stretch> {
    let newest = after.keys().next_back().copied().unwrap_or(i64::MIN);
    let stretches = joined.iter().filter_map(|(&history, &until)| {
        let from = match after.get(&history) {
            Some(&from) => from,
            // It began later; an older one had been left out as one of too many.
            None if history > newest => BEGINNING,
            None => return None,
        };
        (from < until).then_some((history, from, until))
    });
    stretches.collect()
}

/// Looks at a table after commits, until nobody follows it any more.
async fn look(inner: Arc<Inner>, followed: Arc<Followed>) {
    let mut commits = inner.commits.clone();
    let mut again = false;
    loop {
        let woken = async {
            if again {
                return true;
            }
            // What nobody follows any more is noticed although nothing is stored.
            match tokio::time::timeout(KEEP_ALIVE, commits.changed()).await {
                Ok(changed) => changed.is_ok(),
                Err(_) => true,
            }
        };
        let goes_on = tokio::select! {
            () = inner.stop.cancelled() => false,
            woken = woken => woken,
        };
        if !goes_on || inner.is_deserted(&followed) {
            break;
        }
        again = match look_once(&inner, &followed).await {
            Ok(true) => false,
            // Another version of the plugin has another table: those who come back are told of that one.
            Ok(false) => break,
            Err(ReadError::Busy | ReadError::TimeLimit { .. }) => true,
            Err(error) => {
                let table = followed.shape.entry.name.as_str();
                tracing::warn!(table, %error, "the table cannot be followed any more");
                break;
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    followed.end();
}

impl Inner {
    /// Whether nobody follows a table any more; it is not among those that are followed then.
    fn is_deserted(&self, followed: &Arc<Followed>) -> bool {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = followed.told();
        told.views.retain(|view| Arc::strong_count(view) > 1);
        if told.views.is_empty() {
            told.ended = true;
            let name = &followed.shape.entry.name;
            if tables.get(name).is_some_and(|known| Arc::ptr_eq(known, followed)) {
                tables.remove(name);
            }
        }
        told.ended
    }
}

/// Tells all views of a table what has come. Returns whether it is still the same table.
async fn look_once(inner: &Inner, followed: &Arc<Followed>) -> Result<bool, ReadError> {
    let (reader, shape) = (&inner.reader, &followed.shape);
    match reader.table(&shape.entry.name).await? {
        Some(entry) if entry.description == shape.entry.description => {}
        _ => return Ok(false),
    }
    let now = reader.places(shape).await?;
    let known = followed.told().places.clone();
    for (history, until) in now {
        let mut after = known.get(&history).copied().unwrap_or(BEGINNING);
        let mut skipped = 0;
        if after < until {
            let kept = reader.place_before(shape, history, until, LOOK_ROWS).await?;
            if kept > after {
                skipped = reader
                    .arrivals_between(shape, history, after, kept, SKIPPED_MAX)
                    .await?;
                after = kept;
            }
        }
        while after < until {
            // Rows are in memory only while it is the turn of this table.
            let Ok(turn) = Arc::clone(&inner.comparing).acquire_owned().await else {
                return Ok(false);
            };
            let rows = reader.arrivals(shape, history, after, until, LOOK_ROWS).await?;
            after = rows.last().map_or(until, place_of);
            let (told, skipped) = (Arc::clone(followed), std::mem::take(&mut skipped));
            let work = move || told.tell(history, after, &rows, skipped);
            if blocking(turn, work).await.is_none() {
                return Ok(false);
            }
        }
        followed.told().places.insert(history, until);
    }
    Ok(true)
}

/// Does work on a blocking thread. None when it panicked or the host is stopping.
async fn blocking<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.ok()
}

impl Followed {
    /// Compares rows with all views and publishes them, together with the place that is known to all views then. The lock
    /// is not held meanwhile; views that were added in the meantime receive the same rows.
    fn tell(&self, history: i64, place: (i64, i64), rows: &[RowRecord], skipped: u64) {
        let mut ready: Vec<(Arc<View>, Prepared)> = Vec::new();
        loop {
            let mut told = self.told();
            let is_new = |view: &&Arc<View>| !ready.iter().any(|(known, _)| Arc::ptr_eq(known, view));
            let new: Vec<Arc<View>> = told.views.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                told.places.insert(history, place);
                for (view, prepared) in ready {
                    view.publish(prepared);
                }
                return;
            }
            let (mut places, told_views) = (told.places.clone(), told.views.len());
            drop(told);
            places.insert(history, place);
            let id = resume_id(&self.shape, &places);
            let share = COMPARE_TIME / u32::try_from(new.len()).unwrap_or(u32::MAX);
            let room = ring::BYTES_MAX.min(RENDERED_BYTES / told_views.max(1));
            for view in new {
                let deadline = Instant::now() + share.max(COMPARE_TIME_OF_VIEW);
                let prepared = view.prepare(&self.shape, rows, (skipped, &id), room, || {
                    Instant::now() >= deadline
                });
                ready.push((view, prepared));
            }
        }
    }
}

fn place_of(record: &RowRecord) -> (i64, i64) {
    (record.origin.sequence, record.origin.row)
}

/// Where somebody who has heard all up to these places may go on.
fn resume_id(shape: &Shape, places: &Places) -> String {
    cursor::of_places(shape.entry.name.as_str(), places)
}

/// Somebody who follows a table.
pub struct Follower {
    hello: Option<Bytes>,
    missed: Vec<Stretch>,
    /// Where the table stood when it began to follow; what came later is in the view.
    joined: Places,
    /// Set when it is dropped, so that a comparison on another thread ends.
    gone: Arc<AtomicBool>,
    followed: Arc<Followed>,
    view: Arc<View>,
    reading: Reading,
    changed: watch::Receiver<u64>,
    inner: Arc<Inner>,
    until: Instant,
    /// How long after the first it looks at what has come.
    turn: Duration,
    _share: Share,
}

impl Follower {
    /// The next event; none when it is over.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        loop {
            while let Some(stretch) = self.missed.pop() {
                // What cannot be read ends it; somebody who comes back asks again.
                let block = self.catch_up(stretch).await.ok()?;
                if block.is_some() {
                    return block;
                }
            }
            self.changed.borrow_and_update();
            match self.view.read(&mut self.reading) {
                Read::Block(block) => return Some(block),
                Read::Missed(rows) => return Some(ring::gap(rows)),
                Read::End => return None,
                Read::Nothing => {}
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.changed.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(self.turn).await;
                }
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(self.still_here()),
            }
        }
    }

    /// A part of a stretch that was missed; what is left of it is kept for the next time.
    async fn catch_up(&mut self, stretch: Stretch) -> Result<Option<Bytes>, ReadError> {
        let (history, after, until) = stretch;
        let (reader, shape) = (&self.inner.reader, &self.followed.shape);
        let kept = reader.place_before(shape, history, until, RESUME_ROWS).await?;
        if kept > after {
            let skipped = reader
                .arrivals_between(shape, history, after, kept, SKIPPED_MAX)
                .await?;
            self.missed.push((history, kept, until));
            return Ok(Some(ring::gap(skipped)));
        }
        // Rows are in memory only while it is this follower's turn.
        let turn = Arc::clone(&self.inner.catching_up).acquire_owned().await;
        let turn = turn.map_err(|_| ReadError::Busy)?;
        let rows = reader
            .arrivals(shape, history, after, until, ring::ROWS_MAX as u32)
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let (followed, view) = (Arc::clone(&self.followed), Arc::clone(&self.view));
        let (gone, missed, joined) = (Arc::clone(&self.gone), self.missed.clone(), self.joined.clone());
        let compared = blocking(turn, move || {
            let deadline = Instant::now() + CATCH_UP_TIME;
            let has_to_stop = || gone.load(Ordering::Relaxed) || Instant::now() >= deadline;
            let shape = &followed.shape;
            compare(shape, &view, &rows, has_to_stop, |place| {
                // A client that disconnects now resumes from here: the rows still missed, and all others up to where it joined.
                let mut places = joined.clone();
                let left = (place < until).then_some((history, place, until));
                for (history, from, _) in missed.iter().copied().chain(left) {
                    places.insert(history, from);
                }
                resume_id(shape, &places)
            })
        });
        let Some(compared) = compared.await else {
            return Err(ReadError::Busy);
        };
        if compared.place < until {
            self.missed.push((history, compared.place, until));
        }
        Ok(compared.block)
    }

    fn still_here(&mut self) -> Bytes {
        let told = self.followed.told();
        // With nothing to read, all up to these places was heard.
        match self.view.begin() {
            end if end.is_at(&self.reading) => format!(
                ": still here\nid: {}\n\n",
                resume_id(&self.followed.shape, &told.places)
            )
            .into(),
            _ => Bytes::from_static(b": still here\n\n"),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// What became of rows that a follower has missed.
struct Compared {
    /// The event that tells of them.
    block: Option<Bytes>,
    /// The last row that was compared.
    place: (i64, i64),
}

/// Compares rows, of which there is at least one, until a packet is full or `has_to_stop`. At least one row is done with,
/// so that a follower gets on: one that could not be compared, or is too large, is left out.
fn compare(
    shape: &Shape,
    view: &View,
    rows: &[RowRecord],
    has_to_stop: impl Fn() -> bool,
    id: impl Fn((i64, i64)) -> String,
) -> Compared {
    let mut items = Items::new(shape, &view.wanted);
    let mut last = None;
    for record in rows {
        let added = match view.matcher.matches(shape, &record.cells, &has_to_stop) {
            Ok(true) => items.add(record),
            Ok(false) => Added::Yes,
            Err(_) => Added::TooLarge,
        };
        match added {
            Added::Yes => last = Some(place_of(record)),
            // It is left out when it comes first; the rows before it are sent first.
            Added::TooLarge if last.is_none() => {
                return Compared {
                    block: Some(ring::gap(1)),
                    place: place_of(record),
                };
            }
            Added::TooLarge | Added::Full => break,
        }
    }
    let place = last.unwrap_or_default();
    Compared {
        block: (items.rows() > 0).then(|| items.into_event(Some(&id(place)))),
        place,
    }
}
