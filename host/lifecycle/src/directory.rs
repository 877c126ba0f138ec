//! The plugin directory: a file that appears or changes is taken in and activated, one that goes away pauses its
//! plugin. It is looked at again and again rather than listened to, because events of the file system get lost; and a
//! file is taken only when it has kept still for a while, because files are written in pieces.
//!
//! Beside a file may stand its signature, `NAME.wasm.minisig`, which may come before it or after it: when it changes, the file
//! is looked at again.
//!
//! What was done with a file is kept in the database, so that a start does not undo a rollback.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::start::{StartError, side_by_side, words};
use super::{Actor, Inner, LifecycleError, Parcel, Refusal};
use lantern_plugin::{Digest, Plugin};
use lantern_projection::Version;
use lantern_store::{FileRecord, Way};
use lantern_trust::signature::{FILE_SUFFIX, Rule, SIGNATURE_BYTES_MAX};

/// How often the directory is looked at, and how long a file has to keep still. Listing ten thousand files takes a few
/// milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many looks a file may be missing before it counts as removed: editors and copies take a file away for a moment.
const MISSING_LOOKS: u32 = 4;

/// How the reasons begin for which the directory pauses a plugin.
pub(super) const REASON: &str = "its file ";

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Of the inode, in seconds and nanoseconds: rights that were mended show here alone.
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// The states of a file and of its signature.
type Stamps = (Stamp, Option<Stamp>);

/// What is remembered of a file.
struct Seen {
    stamps: Stamps,
    /// Whether these bytes were dealt with.
    handled: bool,
    missing: u32,
}

pub(super) struct Directory {
    inner: Arc<Inner>,
    seen: BTreeMap<String, Seen>,
    /// What was last done with each file.
    records: BTreeMap<String, FileRecord>,
    actor: Actor,
    /// Whether the directory could be read at the last look.
    readable: bool,
}

impl Directory {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            seen: BTreeMap::new(),
            records: BTreeMap::new(),
            actor: Actor::part("plugin directory"),
            readable: true,
        }
    }

    fn path(&self) -> &Path {
        &self.inner.parts.config.plugin_dir
    }

    /// The first look: what is there is taken to be whole.
    pub(super) async fn look_at_start(&mut self) -> Result<(), StartError> {
        for record in self.inner.parts.store.plugin_files().await? {
            self.records.insert(record.file.clone(), record);
        }
        let found = list(self.path()).map_err(|source| StartError::Directory {
            dir: self.path().to_owned(),
            source,
        })?;
        if found.is_empty() && self.inner.fleet.lock().await.len() == 0 {
            let dir = self.path().display().to_string();
            tracing::warn!(
                dir,
                "there are no plugins (*.wasm) in the plugin directory; nothing is projected"
            );
        }
        let files: Vec<String> = found.keys().cloned().collect();
        let mut loaded = self.load_together(&files).await;
        for (file, stamps) in found {
            let seen = Seen {
                stamps,
                handled: true,
                missing: 0,
            };
            self.seen.insert(file.clone(), seen);
            match loaded.remove(&file) {
                Some(Taken::Known) | None => {}
                Some(Taken::Resigned(parcel)) => self.sign_anew(&file, parcel).await,
                Some(Taken::Plugin(plugin)) => self.activate(&file, plugin).await,
                Some(Taken::Refused(refused)) => self.refuse(&file, refused).await,
            }
        }
        let gone: Vec<String> = self
            .records
            .keys()
            .filter(|file| !self.seen.contains_key(*file))
            .cloned()
            .collect();
        for file in gone {
            self.gone(&file).await;
        }
        Ok(())
    }

    /// The digests of active versions that do not run because their kept components are missing or damaged: a file with
    /// these bytes brings them back.
    async fn lost(&self) -> BTreeSet<String> {
        let installations = match self.inner.parts.store.installations().await {
            Ok(installations) => installations,
            Err(error) => {
                tracing::warn!(%error, "failed to read which plugins are installed");
                return BTreeSet::new();
            }
        };
        let fleet = self.inner.fleet.lock().await;
        let lost = installations.iter().filter_map(|installation| {
            let active = installation.active.and_then(|id| installation.version(id))?;
            let runs = fleet.version(&installation.plugin).is_some();
            let digest: Digest = active.digest.parse().ok()?;
            (!runs && self.inner.components.get(digest).is_err()).then(|| active.digest.clone())
        });
        lost.collect()
    }

    /// The digest that was taken in from a file before, unless it has to be taken in again.
    fn known(&self, file: &str, lost: &BTreeSet<String>) -> Option<String> {
        let record = self.records.get(file)?;
        (!lost.contains(&record.digest)).then(|| record.digest.clone())
    }

    /// Reads, compiles and tries files side by side: at the first start that is most of the time it takes.
    async fn load_together(&self, files: &[String]) -> BTreeMap<String, Taken> {
        let inner = Arc::clone(&self.inner);
        let lost = self.lost().await;
        let known: Vec<(String, Option<String>)> = files
            .iter()
            .map(|file| (file.clone(), self.known(file, &lost)))
            .collect();
        let taken = side_by_side(known, move |(file, known)| {
            let taken = take(&inner, &file, known.as_deref());
            (file, taken)
        });
        taken.await.into_iter().collect()
    }

    /// Looks at the directory until the host stops.
    pub(super) async fn watch(mut self) {
        let stop = self.inner.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let path = self.path().to_owned();
        let listed = tokio::task::spawn_blocking(move || list(&path)).await;
        let found = match listed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.unreadable(&error.to_string()),
            Err(error) => return self.unreadable(&error.to_string()),
        };
        if !self.readable {
            self.readable = true;
            self.inner.forgive("plugin directory");
            tracing::info!("the plugin directory can be read again");
        }
        let mut ready = Vec::new();
        for (file, stamps) in &found {
            match self.seen.get_mut(file) {
                Some(seen) if seen.stamps == *stamps => {
                    seen.missing = 0;
                    if !seen.handled {
                        seen.handled = true;
                        ready.push(file.clone());
                    }
                }
                _ => {
                    let seen = Seen {
                        stamps: *stamps,
                        handled: false,
                        missing: 0,
                    };
                    self.seen.insert(file.clone(), seen);
                }
            }
        }
        for file in ready {
            self.take_one(&file).await;
        }
        let mut gone = Vec::new();
        for (file, seen) in &mut self.seen {
            if !found.contains_key(file) {
                seen.missing += 1;
                if seen.missing >= MISSING_LOOKS {
                    gone.push(file.clone());
                }
            }
        }
        for file in gone {
            self.seen.remove(&file);
            self.gone(&file).await;
        }
    }

    async fn take_one(&mut self, file: &str) {
        let known = self.known(file, &self.lost().await);
        let (inner, name) = (Arc::clone(&self.inner), file.to_owned());
        let taken = {
            // One at a time with whatever else is compiled.
            let _permit = self.inner.compiling.acquire().await.ok();
            tokio::task::spawn_blocking(move || take(&inner, &name, known.as_deref())).await
        };
        match taken {
            Ok(Taken::Known) => {
                self.inner.forgive(&described(file));
                self.back_again(file).await;
            }
            Ok(Taken::Resigned(parcel)) => self.sign_anew(file, parcel).await,
            Ok(Taken::Plugin(plugin)) => self.activate(file, plugin).await,
            Ok(Taken::Refused(refused)) => self.refuse(file, refused).await,
            Err(error) => {
                let reason = format!("the host panicked while it loaded it: {error}");
                self.refuse(file, Refused::because(reason)).await;
            }
        }
    }

    /// Makes a file's plugin run. When it is another plugin than the file held before, that one is left without a file.
    async fn activate(&mut self, file: &str, (plugin, parcel): (Arc<Plugin>, Parcel)) {
        let name = plugin.manifest().name.to_string();
        let other = self.records.values().find(|record| {
            record.plugin == name && record.file != file && self.seen.contains_key(&record.file)
        });
        if let Some(other) = other {
            let reason = format!(
                "another file, {}, has brought a plugin named {name} already",
                other.file
            );
            return self.refuse(file, Refused::because(reason)).await;
        }
        if let Some(before) = self.records.get(file)
            && before.plugin != name
        {
            let before = before.plugin.clone();
            self.pause(&before, &format!("{REASON}{file} is another plugin now"))
                .await;
        }
        let digest = plugin.digest();
        match self.activate_inner(file, plugin, parcel).await {
            Ok(()) => {
                let record = FileRecord {
                    file: file.to_owned(),
                    digest: digest.to_string(),
                    plugin: name,
                };
                if let Err(error) = self.inner.parts.store.note_file(record.clone()).await {
                    tracing::warn!(file, %error, "what was done with a file could not be noted; the next start looks again");
                }
                self.records.insert(file.to_owned(), record);
                self.inner.forgive(&described(file));
            }
            Err(error) => {
                self.try_again_after(file, &error);
                self.refuse(file, Refused::by(error)).await;
            }
        }
    }

    /// The database may come back, and a rebuild end: then the file is new again.
    fn try_again_after(&mut self, file: &str, error: &LifecycleError) {
        let passes = matches!(
            error,
            LifecycleError::Unavailable(_) | LifecycleError::Conflict(_)
        );
        if passes && let Some(seen) = self.seen.get_mut(file) {
            seen.handled = false;
        }
    }

    async fn activate_inner(
        &self,
        file: &str,
        plugin: Arc<Plugin>,
        parcel: Parcel,
    ) -> Result<(), LifecycleError> {
        let came_from = format!("file {file}");
        self.inner.keep(&plugin, parcel, &came_from, &self.actor).await?;
        let name = plugin.manifest().name.to_string();
        self.inner
            .switch(Arc::new(Version::new(plugin)), Way::Forward, &self.actor)
            .await?;
        self.resume_own(&name).await
    }

    /// The bytes are those that were taken in, and their signature is another one: it is kept, and a version that was
    /// refused for want of it runs.
    async fn sign_anew(&mut self, file: &str, parcel: Parcel) {
        let Some(record) = self.records.get(file) else {
            return;
        };
        match self.sign_anew_inner(&record.plugin, parcel).await {
            Ok(()) => {
                self.inner.forgive(&described(file));
                self.back_again(file).await;
            }
            // Somebody has removed it; another signature does not bring it back.
            Err(LifecycleError::NoPlugin(_)) => {}
            Err(error) => {
                self.try_again_after(file, &error);
                self.refuse(file, Refused::by(error)).await;
            }
        }
    }

    async fn sign_anew_inner(&self, plugin: &str, parcel: Parcel) -> Result<(), LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        let digest = Digest::of(&parcel.component);
        let inner = Arc::clone(&self.inner);
        let kept = tokio::task::spawn_blocking(move || {
            inner.keep_signature(digest, &parcel)?;
            Ok::<_, io::Error>(inner.admit(&parcel))
        });
        let unkept =
            |error: String| LifecycleError::Unavailable(format!("its signature cannot be kept: {error}"));
        let kept = kept.await.map_err(|error| unkept(error.to_string()))?;
        kept.map_err(|error| unkept(error.to_string()))??;
        let active = installation.active.and_then(|id| installation.version(id));
        let is_active = active.is_some_and(|active| active.digest == digest.to_string());
        if is_active && self.inner.fleet.lock().await.version(plugin).is_none() {
            let version = self.inner.version(plugin, digest).await?;
            self.inner.switch(version, Way::Forward, &self.actor).await?;
        }
        Ok(())
    }

    /// A file that went away and came back with the same bytes: its plugin goes on.
    async fn back_again(&self, file: &str) {
        if let Some(record) = self.records.get(file)
            && let Err(error) = self.resume_own(&record.plugin).await
        {
            tracing::warn!(file, %error, "a plugin whose file is back cannot go on");
        }
    }

    /// Lets a plugin go on that was paused because its file was gone, and not for another reason.
    async fn resume_own(&self, plugin: &str) -> Result<(), LifecycleError> {
        let installation = match self.inner.installation(plugin).await {
            // Somebody has removed it; the same bytes do not bring it back.
            Err(LifecycleError::NoPlugin(_)) => return Ok(()),
            known => known?,
        };
        match installation.paused {
            Some(reason) if reason.starts_with(REASON) => self.inner.hold(plugin, None, &self.actor).await,
            _ => Ok(()),
        }
    }

    /// A file that was taken in is not there any more.
    async fn gone(&mut self, file: &str) {
        self.inner.forgive(&described(file));
        let Some(record) = self.records.get(file) else {
            return;
        };
        let plugin = record.plugin.clone();
        if let Err(LifecycleError::NoPlugin(_)) = self.inner.installation(&plugin).await {
            self.forget(file).await;
            return;
        }
        self.pause(
            &plugin,
            &format!("{REASON}{file} was removed from the plugin directory"),
        )
        .await;
    }

    /// The file of a plugin that was removed is gone as well: when it comes again, it is new.
    async fn forget(&mut self, file: &str) {
        if let Err(error) = self.inner.parts.store.forget_file(file).await {
            tracing::warn!(file, %error, "a file that is gone could not be forgotten; the next start does it");
            return;
        }
        self.records.remove(file);
    }

    async fn pause(&self, plugin: &str, reason: &str) {
        let held = self.inner.installation(plugin).await;
        match held {
            // Somebody's own reason is the better one; and one that was removed needs none.
            Ok(installation) if installation.paused.is_some() => {}
            Err(LifecycleError::NoPlugin(_)) => {}
            Ok(_) => match self
                .inner
                .hold(plugin, Some(reason.to_owned()), &self.actor)
                .await
            {
                Ok(()) => {}
                Err(error) => tracing::warn!(plugin, %error, "a plugin whose file is gone cannot be paused"),
            },
            Err(error) => tracing::warn!(plugin, %error, "a plugin whose file is gone cannot be paused"),
        }
    }

    async fn refuse(&self, file: &str, refused: Refused) {
        let refusal = Refusal {
            what: described(file),
            reason: refused.reason,
            holds_up: false,
            unsigned: refused.unsigned.is_some(),
        };
        // One that is tried again and again is said once.
        if !self.inner.refusals().contains(&refusal) {
            tracing::error!(file, reason = refusal.reason, "a plugin is refused");
            if refusal.unsigned {
                let detail = format!("file {file}: {}", refusal.reason);
                self.inner
                    .audit_refusal(&self.actor, None, refused.unsigned, &detail)
                    .await;
            }
        }
        self.inner.refuse(refusal);
    }

    /// What runs keeps running.
    fn unreadable(&mut self, error: &str) {
        if self.readable {
            tracing::warn!(
                error,
                "the plugin directory cannot be read; what runs keeps running"
            );
        }
        self.readable = false;
        self.inner.refuse(Refusal {
            what: "plugin directory".to_owned(),
            reason: format!("{} cannot be read: {error}", self.path().display()),
            holds_up: false,
            unsigned: false,
        });
    }
}

/// A file as refusals name it.
fn described(file: &str) -> String {
    format!("file {file}")
}

enum Taken {
    /// These bytes were dealt with before.
    Known,
    /// The same, with another signature than is kept.
    Resigned(Parcel),
    Plugin((Arc<Plugin>, Parcel)),
    Refused(Refused),
}

/// Why a file is not taken in.
struct Refused {
    reason: String,
    /// What was refused for want of a good signature.
    unsigned: Option<Digest>,
}

impl Refused {
    fn because(reason: String) -> Self {
        Self {
            reason,
            unsigned: None,
        }
    }

    fn by(error: LifecycleError) -> Self {
        Self {
            unsigned: error.unsigned(),
            reason: words(error),
        }
    }
}

/// Reads a file whole, with its signature, and loads it. Blocks.
fn take(inner: &Inner, file: &str, known: Option<&str>) -> Taken {
    let dir = &inner.parts.config.plugin_dir;
    let component = match read(dir, file, inner.parts.loader.module_bytes_max()) {
        Ok(bytes) => bytes,
        Err(error) => return Taken::Refused(Refused::because(format!("it cannot be read: {error}"))),
    };
    let signature = match read(dir, &format!("{file}{FILE_SUFFIX}"), SIGNATURE_BYTES_MAX) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) if inner.parts.config.signatures.rule == Rule::Off => None,
        Err(error) => {
            let reason = format!("its signature cannot be read: {error}");
            return Taken::Refused(Refused::because(reason));
        }
    };
    let parcel = Parcel { component, signature };
    let digest = Digest::of(&parcel.component);
    if known == Some(digest.to_string().as_str()) {
        return match inner.is_news(digest, &parcel) {
            Ok(true) => Taken::Resigned(parcel),
            Ok(false) => Taken::Known,
            Err(error) => Taken::Refused(Refused::because(format!(
                "its kept signature cannot be read: {error}"
            ))),
        };
    }
    match inner.load_parcel(&parcel) {
        Ok(plugin) => Taken::Plugin((plugin, parcel)),
        // Without its own frame: the file is what the reason is about.
        Err(LifecycleError::Load(error)) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            Taken::Refused(Refused::because(format!("{:#}{hint}", anyhow::Error::new(error))))
        }
        Err(error) => Taken::Refused(Refused::by(error)),
    }
}

/// At most one byte more than it may have: whoever looks at it then says that it is too large.
fn read(dir: &Path, file: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    // Opening a pipe would wait for a writer. What was opened is examined, and not what had the name a moment before.
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(dir.join(file))?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    opened.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files that may be plugins: `*.wasm`, not hidden, each with the state of its signature. Links are followed, as an
/// operator who makes one expects.
fn list(dir: &Path) -> io::Result<BTreeMap<String, Stamps>> {
    let mut files = BTreeMap::new();
    let mut signatures = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let signed = name.strip_suffix(FILE_SUFFIX);
        if !signed.unwrap_or(name).ends_with(".wasm") {
            continue;
        }
        // What is gone by now was never there.
        let Ok(metadata) = fs::metadata(dir.join(name)) else {
            continue;
        };
        match signed {
            Some(signed) => signatures.insert(signed.to_owned(), Stamp::of(&metadata)),
            None => files.insert(name.to_owned(), Stamp::of(&metadata)),
        };
    }
    let stamps = files.into_iter().map(|(name, stamp)| {
        let signature = signatures.remove(&name);
        (name, (stamp, signature))
    });
    Ok(stamps.collect())
}
