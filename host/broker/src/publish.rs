//! Publishing for the command line: lines become events in an outbox, and the outbox is drained. The host itself never
//! publishes.

use std::io::BufRead;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lantern_outbox::{
    InputFormat, LinesError, LinesOptions, LinesReport, Outbox, OutboxError, OutboxOptions, publish_lines,
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::link::Signals;
use super::{BrokerConfig, ConnectError, CredentialsError, Dialing, auth};
use lantern_trust::private_files::{self, PrivateFileError, Trusted};

/// Lines to publish, and where.
pub struct Lines {
    /// The broker.
    pub broker: BrokerConfig,
    /// The subject.
    pub subject: String,
    /// Headers of each message.
    pub headers: Vec<(String, String)>,
    /// The format of the input.
    pub format: InputFormat,
    /// The JSON field that holds the message id.
    pub id_field: Option<String>,
    /// Directory of waiting events; `None` for a scratch directory that is removed when all were sent.
    pub outbox: Option<PathBuf>,
    /// Whether the outbox's group may read its files.
    pub group_readable: bool,
    /// The input file; `None` for standard input.
    pub file: Option<PathBuf>,
    /// The content.
    pub input: Box<dyn BufRead + Send>,
}

/// The result of publishing.
pub struct Published {
    /// Number of lines, and what is wrong with the rejected ones.
    pub report: LinesReport,
    /// The outbox that holds unsent events, if any.
    pub kept: Option<PathBuf>,
}

/// Why lines could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker's settings cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The outbox cannot be used.
    #[error("cannot use the outbox {}", path.display())]
    Outbox {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: OutboxError,
    },
    /// The directory for scratch outboxes cannot be used.
    #[error("cannot keep events in {}", path.display())]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: PrivateFileError,
    },
    /// An earlier run with the same file left events behind. Sending the file again would send the others twice.
    #[error("an earlier run with this file left {left} of its events unsent in {}", path.display())]
    Unfinished {
        /// Its outbox.
        path: PathBuf,
        /// Number of events.
        left: u64,
    },
    /// The input or the outbox failed while publishing.
    #[error("{}", match kept {
        Some(path) => format!("unsent events are kept in {}", path.display()),
        None => "no events are waiting".to_owned(),
    })]
    Lines {
        /// The outbox that holds unsent events, if any.
        kept: Option<PathBuf>,
        /// The cause.
        #[source]
        source: LinesError,
    },
}

/// Reads all lines, and sends until the broker has them or makes no progress for 30 s.
///
/// # Errors
/// [`PublishError`]. Waiting events are part of the report; they stay in the outbox.
pub async fn publish(lines: Lines) -> Result<Published, PublishError> {
    let dialing = Dialing::prepare(lines.broker, None).await?;
    // The outbox waits for a broker that refuses a login; an unreadable file is reported at once.
    auth::authenticate(&dialing.remote, b"").await?;
    let signals = Arc::new(Signals::default());
    let broker = lantern_outbox::Broker::new(dialing.addresses.as_slice(), dialing.login(&signals));
    let broker = broker.map_err(|source| ConnectError::Url {
        url: dialing.remote.urls.join(", "),
        source,
    })?;
    let path = match &lines.outbox {
        Some(path) => path.clone(),
        None => scratch(&lines.subject, &dialing.remote.urls, lines.file.as_deref())?,
    };
    let failed = |source| PublishError::Outbox {
        path: path.clone(),
        source,
    };
    let mut outbox_options = OutboxOptions::default();
    outbox_options.group_readable = lines.group_readable;
    let outbox = Outbox::open_with(&path, outbox_options).map_err(failed)?;
    if lines.outbox.is_none() {
        let stats = outbox.stats().map_err(failed)?;
        let left = stats.waiting + stats.aside;
        if left > 0 {
            return Err(PublishError::Unfinished { path, left });
        }
    }
    let mut options = LinesOptions::default();
    options.headers = lines.headers;
    options.format = lines.format;
    options.id_field = lines.id_field;
    let stop = CancellationToken::new();
    let sent = publish_lines(lines.input, &lines.subject, &outbox, broker, options, stop).await;
    let stats = outbox.stats().map_err(failed)?;
    let kept = (stats.waiting + stats.aside > 0).then(|| path.clone());
    drop(outbox);
    if kept.is_none() && lines.outbox.is_none() {
        clear(&path);
    }
    match sent {
        Ok(report) => Ok(Published { report, kept }),
        Err(source) => Err(PublishError::Lines { kept, source }),
    }
}

/// Removes a scratch outbox that is no longer needed.
fn clear(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "failed to remove the empty outbox");
    }
}

/// A scratch outbox. The outbox of a file has the same name in each run with that file, so a second run finds what the
/// first one left.
fn scratch(subject: &str, urls: &[String], file: Option<&Path>) -> Result<PathBuf, PublishError> {
    let user = rustix::process::geteuid().as_raw();
    let base = std::env::temp_dir().join(format!("lantern-publish-{user}"));
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&base);
    made.map_err(|source| PrivateFileError::Io {
        action: "create",
        path: base.clone(),
        source,
    })
    .and_then(|()| private_files::check_directory(&base, Trusted::default()))
    .map_err(|source| PublishError::Scratch {
        path: base.clone(),
        source,
    })?;
    let name = file.and_then(|file| name_for(subject, urls, file));
    Ok(base.join(name.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string())))
}

/// Identifies a repetition: the destination and the state of the file. `None` when the file is a pipe or similar, which
/// cannot be read twice.
fn name_for(subject: &str, urls: &[String], file: &Path) -> Option<String> {
    let path = std::fs::canonicalize(file).ok()?;
    let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let state = format!(
        "{subject}\0{}\0{}\0{}\0{}.{}",
        urls.join(","),
        path.display(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    let digest = Sha256::digest(state.as_bytes());
    Some(digest[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}
