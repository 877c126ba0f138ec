//! Table tails. One task per followed table reads new rows after commits, once for all followers; each view filters and
//! serializes them for its followers. A follower that reconnects first receives the rows that it missed, up to a limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::missed::{MissedRange, compare, missed, place_of, resume_id};
use super::ring::{self, Prepared, Read, RingPosition, View, ViewOptions};
use crate::budget::{Client, Share, Shares};
use lantern_model::schema::TableName;
use lantern_store::Reader;
use lantern_store::reader::{ArrivalPositions, BEGINNING, ReadError, RowRecord, Shape};

/// Maximum number of followers of all tables. Each needs a connection with its buffer; packets are shared.
const FOLLOWERS_MAX: usize = 640;
/// Maximum number of views per table; each may keep a megabyte.
const VIEWS_MAX: usize = 64;
/// Minimum interval between two reads of a table.
const READ_INTERVAL: Duration = Duration::from_millis(200);
/// Followers of the same rows wake up spread over this time: hundreds at once would delay ingestion.
const SPREAD: Duration = Duration::from_millis(180);
/// Number of wake-up times within `SPREAD`.
const SPREAD_PARTS: u32 = 90;
/// Maximum number of rows per read; if more have arrived, the oldest are omitted.
const READ_ROWS: u32 = 2_000;
/// Maximum number of missed rows that a follower receives after it reconnects; older rows are omitted.
const RESUME_ROWS: u32 = 5_000;
/// Omitted rows are counted up to this number.
const OMITTED_MAX: u32 = 100_000;
/// Interval of keep-alive comments.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Maximum duration of a response; the client reconnects and is authenticated again.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Time for filtering the rows of one read for all views of a table, divided among them with a minimum share. A view whose
/// conditions take longer receives the number of rows that were not compared.
const COMPARE_TIME: Duration = Duration::from_secs(2);
const COMPARE_TIME_OF_VIEW: Duration = Duration::from_millis(50);
/// Time for filtering the missed rows of one follower; the rest is filtered on its next permit.
const CATCH_UP_TIME: Duration = Duration::from_millis(200);

/// Bytes of packets that are serialized at once for all views of a table.
const RENDERED_BYTES: usize = 16 << 20;

/// Maximum followers of one client; the rest is reserved for other clients.
const FOLLOWERS_OF_CLIENT_MAX: u32 = 512;

/// Reason why a table cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("too many followers or views")]
    Full,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Table tails. Cheap to clone.
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
    /// Permits for filtering and serializing on blocking threads, one for tables and one for followers that catch up: the
    /// API threads stay free, and each kind uses at most one processor.
    comparing: Arc<Semaphore>,
    catching_up: Arc<Semaphore>,
    /// Number of followers since the start.
    joined: AtomicU32,
}

/// A followed table.
struct Followed {
    shape: Shape,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Position that all views have reached.
    places: ArrivalPositions,
    views: Vec<Arc<View>>,
    ended: bool,
}

impl Followed {
    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut progress = self.progress();
        progress.ended = true;
        progress.views.drain(..).for_each(|view| view.end());
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

    /// Follows a table from now on, or after the position `after`.
    pub async fn follow(
        &self,
        shape: Shape,
        wanted: ViewOptions,
        after: Option<ArrivalPositions>,
        client: &Client,
    ) -> Result<Follower, FollowError> {
        let inner = &self.0;
        let share = inner.followers.try_take(client, 1).ok_or(FollowError::Full)?;
        let places = inner.reader.places(&shape).await?;
        let followed = self.followed(shape, places);
        let (view, reading, joined) = {
            let mut progress = followed.progress();
            let view = match progress.views.iter().find(|view| view.wanted == wanted) {
                Some(view) => Arc::clone(view),
                None if progress.views.len() >= VIEWS_MAX => return Err(FollowError::Full),
                None => {
                    let view = Arc::new(View::new(wanted, Arc::clone(&inner.kept)));
                    progress.views.push(Arc::clone(&view));
                    view
                }
            };
            let reading = view.begin();
            (view, reading, progress.places.clone())
        };
        let missed = after.map(|after| missed(&after, &joined)).unwrap_or_default();
        // A follower with missed rows keeps its resume position until it has received them.
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
            wake_up_delay: SPREAD / SPREAD_PARTS
                * (inner.joined.fetch_add(1, Ordering::Relaxed) % SPREAD_PARTS),
            _share: share,
        })
    }

    /// The followed table; starts to follow it if necessary.
    fn followed(&self, shape: Shape, places: ArrivalPositions) -> Arc<Followed> {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(followed) = tables.get(&shape.entry.name)
            && !followed.progress().ended
            && followed.shape.entry.description == shape.entry.description
        {
            return Arc::clone(followed);
        }
        let name = shape.entry.name.clone();
        let progress = Progress {
            places,
            views: Vec::new(),
            ended: false,
        };
        let followed = Arc::new(Followed {
            shape,
            progress: Mutex::new(progress),
        });
        if let Some(old) = tables.insert(name, Arc::clone(&followed)) {
            old.end();
        }
        tokio::spawn(run(Arc::clone(&self.0), Arc::clone(&followed)));
        followed
    }
}

/// Reads a table after commits until it has no followers.
async fn run(inner: Arc<Inner>, followed: Arc<Followed>) {
    let mut commits = inner.commits.clone();
    let mut again = false;
    loop {
        let woken = async {
            if again {
                return true;
            }
            // Without commits, the task still has to notice that the last follower left.
            match tokio::time::timeout(KEEP_ALIVE, commits.changed()).await {
                Ok(changed) => changed.is_ok(),
                Err(_) => true,
            }
        };
        let continues = tokio::select! {
            () = inner.stop.cancelled() => false,
            woken = woken => woken,
        };
        if !continues || inner.is_deserted(&followed) {
            break;
        }
        again = match send_new_rows(&inner, &followed).await {
            Ok(true) => false,
            // The table has changed; clients reconnect to the new one.
            Ok(false) => break,
            Err(ReadError::Busy | ReadError::TimeLimit { .. }) => true,
            Err(error) => {
                let table = followed.shape.entry.name.as_str();
                tracing::warn!(table, %error, "failed to follow the table; its followers are disconnected");
                break;
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => break,
            () = tokio::time::sleep(READ_INTERVAL) => {}
        }
    }
    followed.end();
}

impl Inner {
    /// Whether a table has no followers; if so, removes it.
    fn is_deserted(&self, followed: &Arc<Followed>) -> bool {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut progress = followed.progress();
        progress.views.retain(|view| Arc::strong_count(view) > 1);
        if progress.views.is_empty() {
            progress.ended = true;
            let name = &followed.shape.entry.name;
            if tables.get(name).is_some_and(|known| Arc::ptr_eq(known, followed)) {
                tables.remove(name);
            }
        }
        progress.ended
    }
}

/// Sends new rows to all views of a table. Returns false if the table has changed.
async fn send_new_rows(inner: &Inner, followed: &Arc<Followed>) -> Result<bool, ReadError> {
    let (reader, shape) = (&inner.reader, &followed.shape);
    match reader.table(&shape.entry.name).await? {
        Some(entry) if entry.description == shape.entry.description => {}
        _ => return Ok(false),
    }
    let now = reader.places(shape).await?;
    let known = followed.progress().places.clone();
    for (history, until) in now {
        let mut after = known.get(&history).copied().unwrap_or(BEGINNING);
        let mut unread = 0;
        if after < until {
            let kept = reader.place_before(shape, history, until, READ_ROWS).await?;
            if kept > after {
                unread = reader
                    .arrivals_between(shape, history, after, kept, OMITTED_MAX)
                    .await?;
                after = kept;
            }
        }
        while after < until {
            // Rows are in memory only while this table holds the permit.
            let Ok(permit) = Arc::clone(&inner.comparing).acquire_owned().await else {
                return Ok(false);
            };
            let rows = reader.arrivals(shape, history, after, until, READ_ROWS).await?;
            after = rows.last().map_or(until, place_of);
            let (progress, unread) = (Arc::clone(followed), std::mem::take(&mut unread));
            let work = move || progress.publish_rows(history, after, &rows, unread);
            if blocking(permit, work).await.is_none() {
                return Ok(false);
            }
        }
        followed.progress().places.insert(history, until);
    }
    Ok(true)
}

/// Runs work on a blocking thread. None if it panicked or the host is stopping.
async fn blocking<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.ok()
}

impl Followed {
    /// Filters rows for all views, then publishes them together with the new position. The lock is not held during the
    /// work; views that were added in the meantime receive the same rows.
    fn publish_rows(&self, history: i64, place: (i64, i64), rows: &[RowRecord], unread: u64) {
        let mut ready: Vec<(Arc<View>, Prepared)> = Vec::new();
        loop {
            let mut progress = self.progress();
            let is_new = |view: &&Arc<View>| !ready.iter().any(|(known, _)| Arc::ptr_eq(known, view));
            let new: Vec<Arc<View>> = progress.views.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                progress.places.insert(history, place);
                for (view, prepared) in ready {
                    view.publish(prepared);
                }
                return;
            }
            let (mut places, view_count) = (progress.places.clone(), progress.views.len());
            drop(progress);
            places.insert(history, place);
            let id = resume_id(&self.shape, &places);
            let share = COMPARE_TIME / u32::try_from(new.len()).unwrap_or(u32::MAX);
            let room = ring::BYTES_MAX.min(RENDERED_BYTES / view_count.max(1));
            for view in new {
                let deadline = Instant::now() + share.max(COMPARE_TIME_OF_VIEW);
                let prepared = view.prepare(&self.shape, rows, (unread, &id), room, || {
                    Instant::now() >= deadline
                });
                ready.push((view, prepared));
            }
        }
    }
}

/// A follower of a table.
pub struct Follower {
    hello: Option<Bytes>,
    missed: Vec<MissedRange>,
    /// Position of the table when the follower joined; later rows are in the view.
    joined: ArrivalPositions,
    /// Set on drop, so that filtering on another thread stops.
    gone: Arc<AtomicBool>,
    followed: Arc<Followed>,
    view: Arc<View>,
    reading: RingPosition,
    changed: watch::Receiver<u64>,
    inner: Arc<Inner>,
    until: Instant,
    /// Wake-up delay, which spreads the followers.
    wake_up_delay: Duration,
    _share: Share,
}

impl Follower {
    /// The next event; none at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        loop {
            while let Some(range) = self.missed.pop() {
                // A read error ends the response; the client reconnects.
                let block = self.catch_up(range).await.ok()?;
                if block.is_some() {
                    return block;
                }
            }
            self.changed.borrow_and_update();
            match self.view.read(&mut self.reading) {
                Read::Block(block) => return Some(block),
                Read::Missed(rows) => return Some(ring::omitted(rows)),
                Read::End => return None,
                Read::Nothing => {}
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.changed.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(self.wake_up_delay).await;
                }
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(self.keep_alive()),
            }
        }
    }

    /// Reads a part of a missed range; keeps the rest for the next call.
    async fn catch_up(&mut self, range: MissedRange) -> Result<Option<Bytes>, ReadError> {
        let (history, after, until) = range;
        let (reader, shape) = (&self.inner.reader, &self.followed.shape);
        let kept = reader.place_before(shape, history, until, RESUME_ROWS).await?;
        if kept > after {
            let unread = reader
                .arrivals_between(shape, history, after, kept, OMITTED_MAX)
                .await?;
            self.missed.push((history, kept, until));
            return Ok(Some(ring::omitted(unread)));
        }
        // Rows are in memory only while this follower holds the permit.
        let permit = Arc::clone(&self.inner.catching_up).acquire_owned().await;
        let permit = permit.map_err(|_| ReadError::Busy)?;
        let rows = reader
            .arrivals(shape, history, after, until, ring::ROWS_MAX as u32)
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let (followed, view) = (Arc::clone(&self.followed), Arc::clone(&self.view));
        let (gone, missed, joined) = (Arc::clone(&self.gone), self.missed.clone(), self.joined.clone());
        let compared = blocking(permit, move || {
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

    fn keep_alive(&mut self) -> Bytes {
        let progress = self.followed.progress();
        // Without unread packets the follower has received everything up to these places.
        match self.view.begin() {
            end if end.is_at(&self.reading) => format!(
                ": keep-alive\nid: {}\n\n",
                resume_id(&self.followed.shape, &progress.places)
            )
            .into(),
            _ => Bytes::from_static(b": keep-alive\n\n"),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}
