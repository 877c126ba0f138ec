//! Access control. [`Access`] keeps all valid tokens in memory and the rules of the listening address; it creates and
//! revokes tokens and writes the audit (`recording`). The text of a token is returned once, on creation: the host stores
//! and compares its SHA-256, which is sufficient for 256 random bits.
//!
//! `gate` calls it before every handler.

mod recording;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::header::{self, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

pub use lantern_store::Role;

use super::budget::{ANSWER_BYTES_DEFAULT, Budget, Shares};
use super::forward::Forwarding;
use super::guard::Named;
use super::problem::Problem;
use lantern_model::actor::{Actor, HostPart};
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;
use lantern_store::reader::{ReadError, Reader, TOKENS_MAX};
use lantern_store::{AuditEntry, AuditMark, AuditOutcome, CommitError, NewToken, Store};
use lantern_telemetry::Throttle;
use recording::{READS_MAX, REFUSALS_MAX};

/// Prefix of all tokens, by which people and secret scanners recognize them.
const PREFIX: &str = "lantern_";

/// Invalid tokens per minute that receive 401; further ones receive 429. Guessing 256 bits is infeasible: the limit keeps
/// a misconfigured program from filling logs.
const WRONG_TOKENS_MAX: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

/// Maximum number of uploads in memory. Each may have `limits.module_size` bytes, 64 MiB by default.
const UPLOADS_MAX: usize = 2;

/// Maximum number of concurrent table queries, in total and per client. The database has four readers, so one client cannot
/// use all of them; other queries wait for a reader.
const QUESTIONS_MAX: usize = 64;
const QUESTIONS_OF_CLIENT_MAX: u32 = 3;

pub use lantern_model::actor::{LOCAL_TOKEN, LOCAL_TOKEN_OF_NODE};

/// Access rules of the listening address.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether only programs on this machine can connect. If so, reads need no token unless `reads_need_token` is set.
    pub loopback: bool,
    /// Accepted host names besides the local ones. Lowercase, without ports.
    pub hosts: Vec<String>,
    /// Whether operators may run SQL queries.
    pub sql: bool,
    /// Whether reads over loopback need a token too.
    pub reads_need_token: bool,
    /// Memory for responses that clients have not read yet, in bytes.
    pub answer_bytes: u64,
    /// Name of the token that the host creates for the owner of its data directory; each of several hosts of a database has
    /// another one.
    pub local_token: String,
    /// Passes changes on between several hosts of a database; none if there is only this host.
    pub forwarding: Option<Arc<Forwarding>>,
}

impl Config {
    /// A host that is reachable only from this machine, under local names.
    pub fn loopback() -> Self {
        Self {
            loopback: true,
            hosts: Vec::new(),
            sql: false,
            reads_need_token: false,
            answer_bytes: ANSWER_BYTES_DEFAULT,
            local_token: LOCAL_TOKEN.to_owned(),
            forwarding: None,
        }
    }

    /// Whether a request with this kind of host name may read without a token. A proxy on this machine forwards foreign
    /// requests over loopback, with a configured name.
    pub(super) fn is_near(&self, named: Named) -> bool {
        self.loopback && !self.reads_need_token && named == Named::Machine
    }
}

/// The holder of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token.
    pub name: TokenName,
    /// Role of the token.
    pub role: Role,
}

impl Principal {
    /// The holder as the actor of an operation.
    pub fn actor(&self) -> Actor {
        Actor::holder(&self.name)
    }
}

/// The text of a token. Its `Debug` output omits the text.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    fn random() -> Result<Self, AccessError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(AccessError::Random)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The text: return it once, or write it to a file that only its owner can read.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// Reason why a token was not created or revoked. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The name is in use.
    #[error("token {0} already exists")]
    Taken(TokenName),
    /// The name is reserved for the host.
    #[error("the name {0} is reserved for the token that the host creates at start")]
    Reserved(TokenName),
    /// The maximum number of tokens exists.
    #[error("the maximum of {TOKENS_MAX} tokens exists")]
    TooMany,
    /// No token has the name.
    #[error("there is no token {0}")]
    Absent(TokenName),
    /// The system provided no random numbers.
    #[error("the system provided no random numbers: {0}")]
    Random(getrandom::Error),
    /// The database is not writable.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// A token in memory.
struct Known {
    principal: Principal,
    expires_at: Option<Timestamp>,
    /// Last recorded use, in microseconds since 1970.
    touched_at: AtomicI64,
    /// Limits its refusals in the audit.
    refusals: Throttle,
    /// Limits its reads in the audit.
    reads: Throttle,
}

impl Known {
    fn new(principal: Principal, expires_at: Option<Timestamp>, touched_at: i64) -> Self {
        Self {
            principal,
            expires_at,
            touched_at: AtomicI64::new(touched_at),
            refusals: Throttle::new(REFUSALS_MAX, MINUTE),
            reads: Throttle::new(READS_MAX, MINUTE),
        }
    }
}

struct Inner {
    store: Arc<Store>,
    config: Config,
    /// By SHA-256 of the text: timing a lookup reveals parts of a digest, not of a token.
    tokens: RwLock<HashMap<[u8; 32], Known>>,
    wrong_tokens: Throttle,
    /// Limits the refusals of clients without a valid token in the audit.
    anonymous_refusals: Throttle,
    uploads: Arc<Semaphore>,
    budget: Budget,
    questions: Shares,
}

/// Handle of access control. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

impl Access {
    /// Loads the tokens from the database. The process owns the database, so tokens change only through this handle.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn open(store: Arc<Store>, reader: &Reader, config: Config) -> Result<Self, ReadError> {
        let inner = Inner {
            tokens: RwLock::new(stored_tokens(reader).await?),
            budget: Budget::new(config.answer_bytes),
            questions: Shares::new(QUESTIONS_MAX, QUESTIONS_OF_CLIENT_MAX),
            store,
            config,
            wrong_tokens: Throttle::new(WRONG_TOKENS_MAX, MINUTE),
            anonymous_refusals: Throttle::new(REFUSALS_MAX, MINUTE),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Creates a token and returns its text, which is not available again. `mark` is written to the audit in the same
    /// transaction.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn create(
        &self,
        name: TokenName,
        role: Role,
        created_by: &Actor,
        expires_at: Option<Timestamp>,
        mark: Option<AuditMark>,
    ) -> Result<TokenText, AccessError> {
        if name.as_str() == LOCAL_TOKEN || name.as_str().starts_with(LOCAL_TOKEN_OF_NODE) {
            return Err(AccessError::Reserved(name));
        }
        if self.read_tokens(HashMap::len) >= TOKENS_MAX {
            return Err(AccessError::TooMany);
        }
        let (text, token) = new_token(name, role, created_by, expires_at)?;
        if !self.0.store.create_token(token.clone(), mark).await? {
            return Err(AccessError::Taken(token.name));
        }
        self.learn(token);
        Ok(text)
    }

    /// Replaces the operator token of the host; the previous one becomes invalid.
    ///
    /// # Errors
    /// [`AccessError::Random`] and [`AccessError::Store`].
    pub async fn renew_local(&self) -> Result<TokenText, AccessError> {
        let local = self.0.config.local_token.clone();
        let name = TokenName::parse(&local).map_err(CommitError::Unavailable)?;
        let actor = Actor::Host(HostPart::Start);
        let (text, token) = new_token(name, Role::Operator, &actor, None)?;
        let entry = AuditEntry {
            actor,
            action: "token.create".to_owned(),
            plugin: None,
            digest: None,
            outcome: AuditOutcome::Done,
            detail: format!("token {local}, role operator, for the owner of the data directory"),
        };
        self.0
            .store
            .replace_token(token.clone(), Some(entry.into()))
            .await?;
        self.forget(&local);
        self.learn(token);
        Ok(text)
    }

    /// Reads the tokens again, because another host of the database created or revoked some.
    ///
    /// # Errors
    /// See [`ReadError`]; the known tokens stay valid then.
    pub async fn reload(&self, reader: &Reader) -> Result<(), ReadError> {
        let mut stored = stored_tokens(reader).await?;
        let mut tokens = self.0.tokens.write().unwrap_or_else(PoisonError::into_inner);
        // Limits and times of use of tokens that stay are kept.
        for (sha256, known) in tokens.drain() {
            if stored
                .get(&sha256)
                .is_some_and(|now| now.principal == known.principal && now.expires_at == known.expires_at)
            {
                stored.insert(sha256, known);
            }
        }
        *tokens = stored;
        Ok(())
    }

    /// Whether this is the name of the token that the host creates for the owner of its data directory.
    pub fn is_local(&self, name: &TokenName) -> bool {
        name.as_str() == self.0.config.local_token
    }

    /// Revokes a token. `mark` is written to the audit in the same transaction.
    ///
    /// # Errors
    /// [`AccessError::Absent`] and [`AccessError::Store`]; the token is still valid after the latter.
    pub async fn revoke(&self, name: &TokenName, mark: Option<AuditMark>) -> Result<(), AccessError> {
        let existed = self.0.store.revoke_token(name, mark).await?;
        self.forget(name.as_str());
        existed
            .then_some(())
            .ok_or_else(|| AccessError::Absent(name.clone()))
    }

    /// The holder of a token; none if it is invalid. Does not count as an attempt.
    pub fn holder(&self, text: &str) -> Option<Principal> {
        self.find_principal(text)?.ok()
    }

    /// The access rules.
    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// The way to the other hosts of the database.
    pub(super) fn forwarding(&self) -> Option<&Forwarding> {
        self.0.config.forwarding.as_deref()
    }

    /// Permits for uploads in memory.
    pub(super) fn uploads(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.uploads)
    }

    /// Permits for table queries.
    pub(super) fn questions(&self) -> &Shares {
        &self.0.questions
    }

    /// Memory for responses.
    pub(super) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Authenticates the request by its `Authorization` header; none without the header.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Principal>, Problem> {
        let Some(text) = bearer(headers) else {
            return Ok(None);
        };
        match text.and_then(|text| self.find_principal(text)) {
            Some(Ok(principal)) => Ok(Some(principal)),
            Some(Err(Expired)) => Err(Problem::unauthorized("the token has expired")),
            None => Err(match self.0.wrong_tokens.note() {
                Ok(_) => Problem::unauthorized("the token is unknown").hint(
                    "use a valid token; if the one in DATA_DIR/operator.token was revoked, delete that file and restart \
                     the host, which creates another one",
                ),
                Err(wait) => Problem::too_many("too many requests with an invalid token", wait),
            }),
        }
    }

    /// Whether the token of an admitted request is still valid; always true without a token.
    pub(super) fn is_still_good(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_none_or(|text| text.and_then(|text| self.holder(text)).is_some())
    }

    /// Whether a request has a valid token. Does not count as an attempt.
    pub(super) fn is_of_holder(&self, headers: &HeaderMap) -> bool {
        let token = bearer(headers).flatten();
        token.is_some_and(|text| self.holder(text).is_some())
    }

    /// Actor of the request in the audit.
    pub(super) fn actor(&self, headers: &HeaderMap) -> Actor {
        let known = bearer(headers).flatten().and_then(|text| self.holder(text));
        known.map_or(Actor::Anonymous, |principal| principal.actor())
    }

    fn find_principal(&self, text: &str) -> Option<Result<Principal, Expired>> {
        let sha256 = digest(text);
        let now = Timestamp::now();
        let (principal, touch) = {
            let tokens = self.0.tokens.read().unwrap_or_else(PoisonError::into_inner);
            let known = tokens.get(&sha256)?;
            if known.expires_at.is_some_and(|at| at <= now) {
                return Some(Err(Expired));
            }
            let touched = known.touched_at.load(Ordering::Relaxed);
            let due = now.0.saturating_sub(touched) > MINUTE.as_micros() as i64;
            if due {
                known.touched_at.store(now.0, Ordering::Relaxed);
            }
            (known.principal.clone(), due)
        };
        if touch {
            let store = Arc::clone(&self.0.store);
            // The request does not wait for it, and losing the record of a use is acceptable.
            tokio::spawn(async move {
                if let Err(error) = store.touch_token(sha256, now).await {
                    tracing::debug!(%error, "failed to record the last use of a token");
                }
            });
        }
        Some(Ok(principal))
    }

    fn learn(&self, token: NewToken) {
        let principal = Principal {
            name: token.name.clone(),
            role: token.role,
        };
        let known = Known::new(principal, token.expires_at, 0);
        let mut tokens = self.0.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.sha256, known);
    }

    fn forget(&self, name: &str) {
        let mut tokens = self.0.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, known| known.principal.name.as_str() != name);
    }

    fn read_tokens<T>(&self, read: impl FnOnce(&HashMap<[u8; 32], Known>) -> T) -> T {
        read(&self.0.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn stored_tokens(reader: &Reader) -> Result<HashMap<[u8; 32], Known>, ReadError> {
    let kept = reader.tokens().await?;
    let tokens = kept.into_iter().filter_map(|token| {
        let role = token.role;
        let name = TokenName::parse(&token.name)
            .inspect_err(|error| {
                tracing::error!(error, "a stored token has an invalid name; it is not accepted")
            })
            .ok()?;
        let used = token.last_used_at.map_or(0, |at| at.0);
        let known = Known::new(Principal { name, role }, token.expires_at, used);
        Some((token.sha256, known))
    });
    Ok(tokens.collect())
}

/// The token has expired.
struct Expired;

fn new_token(
    name: TokenName,
    role: Role,
    created_by: &Actor,
    expires_at: Option<Timestamp>,
) -> Result<(TokenText, NewToken), AccessError> {
    let text = TokenText::random()?;
    let token = NewToken {
        name,
        role,
        sha256: digest(text.as_str()),
        created_at: Timestamp::now(),
        created_by: created_by.clone(),
        expires_at,
    };
    Ok((text, token))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The token in `Authorization: Bearer`. The outer option is none without the header, the inner one if the header is
/// malformed, which counts as an invalid token.
fn bearer(headers: &HeaderMap) -> Option<Option<&str>> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next()?;
    let mut text = || {
        let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
        (all.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
    };
    Some(text())
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let reason = error.to_string();
        match error {
            AccessError::Taken(_) | AccessError::TooMany => Self::conflict(reason),
            AccessError::Reserved(_) => Self::bad_request(reason),
            AccessError::Absent(_) => Self::not_found(reason),
            AccessError::Store(error) => error.into(),
            AccessError::Random(_) => {
                tracing::error!(error = reason, "failed to create a token");
                Self::internal()
            }
        }
    }
}
