//! Who may ask for what. [`Access`] knows every token that is good, in memory, and the rules for the place where the
//! host listens; it makes tokens and revokes them, and writes the audit (`recording`). A token's text is shown once, to the one who
//! made it, and is nowhere after that: what is kept and compared is its SHA-256, which is enough for 256 random bits.
//!
//! It decides; `gate` asks it before every handler.

mod recording;

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
use super::guard::Named;
use super::problem::Problem;
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;
use lantern_store::reader::{ReadError, Reader, TOKENS_MAX};
use lantern_store::{AuditEntry, AuditMark, AuditOutcome, CommitError, NewToken, Store};
use lantern_telemetry::Throttle;
use recording::{READS_MAX, REFUSALS_MAX};

/// What every token begins with, so that people and scanners of secrets recognise one.
const PREFIX: &str = "lantern_";

/// Wrong tokens that are answered with 401 in a minute; the next ones get 429. Nobody guesses 256 bits: this keeps
/// a misconfigured program from filling logs.
const WRONG_TOKENS_MAX: u32 = 20;

const MINUTE: Duration = Duration::from_secs(60);

/// Uploads that are held in memory at once. Each may have `limits.module_size` bytes, 64 MiB by default.
const UPLOADS_MAX: usize = 2;

/// Questions about tables that are answered at once, and those of one client. The database has four readers, so one client
/// cannot keep all of them busy; the other questions wait for a reader.
const QUESTIONS_MAX: usize = 64;
const QUESTIONS_OF_CLIENT_MAX: u32 = 3;

/// The token that the host makes for the command line on its own machine.
pub const LOCAL_TOKEN: &str = "local";

/// Where the host listens, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether only programs on this machine can connect. Reads need no token then, unless `reads_need_token` is set.
    pub loopback: bool,
    /// Names that a request may call the host by, besides those of this machine. Without ports, in lower case.
    pub hosts: Vec<String>,
    /// Whether operators may ask in SQL.
    pub sql: bool,
    /// Whether reads need a token on the loopback interface as well.
    pub reads_need_token: bool,
    /// Memory for answers that clients have not read yet, in bytes.
    pub answer_bytes: u64,
}

impl Config {
    /// A host that only this machine reaches, under no other name.
    pub fn loopback() -> Self {
        Self {
            loopback: true,
            hosts: Vec::new(),
            sql: false,
            reads_need_token: false,
            answer_bytes: ANSWER_BYTES_DEFAULT,
        }
    }

    /// Whether a request that calls the host by this name may read without a token. Through a proxy on this machine
    /// strangers come in by a listed name, over the loopback interface.
    pub(super) fn is_near(&self, named: Named) -> bool {
        self.loopback && !self.reads_need_token && named == Named::Machine
    }
}

/// Who asks: the holder of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's name.
    pub name: String,
    /// What it allows.
    pub role: Role,
}

/// A token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    fn random() -> Result<Self, AccessError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(AccessError::Random)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// To be shown once, or written to a file that only its owner reads.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// Why a token cannot be made or revoked. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is one of this name.
    #[error("there is a token {0} already")]
    Taken(TokenName),
    /// The name is the host's own.
    #[error("the token {0} is the host's own and made by it at start")]
    Reserved(TokenName),
    /// There are as many as there may be.
    #[error("there are {TOKENS_MAX} tokens, and no room for more")]
    TooMany,
    /// There is none of this name.
    #[error("there is no token {0}")]
    Absent(TokenName),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The database cannot be written.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// A token as it is held in memory.
struct Known {
    principal: Principal,
    expires_at: Option<Timestamp>,
    /// Microseconds since 1970 of the last use that was written down.
    touched_at: AtomicI64,
    /// Bounds its refusals in the audit.
    refusals: Throttle,
    /// Bounds its reads in the audit.
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
    /// By SHA-256 of the text: whoever measures how long a look-up takes learns something of a digest, not of a token.
    tokens: RwLock<HashMap<[u8; 32], Known>>,
    wrong_tokens: Throttle,
    /// Bounds the refusals of clients without a good token in the audit.
    anonymous_refusals: Throttle,
    uploads: Arc<Semaphore>,
    budget: Budget,
    questions: Shares,
}

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

impl Access {
    /// Learns the tokens that the database holds. The process owns the database, so they change only through this.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn open(store: Arc<Store>, reader: &Reader, config: Config) -> Result<Self, ReadError> {
        let kept = reader.tokens().await?;
        let tokens = kept.into_iter().map(|token| {
            let (name, role) = (token.name, token.role);
            let used = token.last_used_at.map_or(0, |at| at.0);
            let known = Known::new(Principal { name, role }, token.expires_at, used);
            (token.sha256, known)
        });
        let inner = Inner {
            tokens: RwLock::new(tokens.collect()),
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

    /// Makes a token for somebody. This is the only time that its text can be had. `mark` is written to the audit in the
    /// transaction that keeps the token.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn create(
        &self,
        name: TokenName,
        role: Role,
        created_by: &str,
        expires_at: Option<Timestamp>,
        mark: Option<AuditMark>,
    ) -> Result<TokenText, AccessError> {
        if name.as_str() == LOCAL_TOKEN {
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

    /// Makes the host's own operator token anew; the one before it is no longer good.
    ///
    /// # Errors
    /// [`AccessError::Random`] and [`AccessError::Store`].
    pub async fn renew_local(&self) -> Result<TokenText, AccessError> {
        let name = TokenName::parse(LOCAL_TOKEN).map_err(CommitError::Unavailable)?;
        let (text, token) = new_token(name, Role::Operator, AuditEntry::HOST, None)?;
        let entry = AuditEntry {
            actor: AuditEntry::HOST.to_owned(),
            action: "token.create".to_owned(),
            plugin: None,
            digest: None,
            outcome: AuditOutcome::Done,
            detail: format!("token {LOCAL_TOKEN}, role operator, for the owner of the data directory"),
        };
        self.0
            .store
            .replace_token(token.clone(), Some(entry.into()))
            .await?;
        self.forget(LOCAL_TOKEN);
        self.learn(token);
        Ok(text)
    }

    /// Has a token refused from now on. `mark` is written to the audit in the transaction that removes the token.
    ///
    /// # Errors
    /// [`AccessError::Absent`] and [`AccessError::Store`]; the token is still good after the second.
    pub async fn revoke(&self, name: &TokenName, mark: Option<AuditMark>) -> Result<(), AccessError> {
        let there_was_one = self.0.store.revoke_token(name, mark).await?;
        self.forget(name.as_str());
        there_was_one
            .then_some(())
            .ok_or_else(|| AccessError::Absent(name.clone()))
    }

    /// Whose token this is; none when it is not good. Does not count as an attempt.
    pub fn holder(&self, text: &str) -> Option<Principal> {
        self.look_up(text)?.ok()
    }

    /// Where the host listens, and its names.
    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// A place in memory for an upload.
    pub(super) fn uploads(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.uploads)
    }

    /// Questions about tables that are answered at once.
    pub(super) fn questions(&self) -> &Shares {
        &self.0.questions
    }

    /// The memory for answers.
    pub(super) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Who asks, by the request's `Authorization`; none when it has none.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Principal>, Problem> {
        let Some(text) = bearer(headers) else {
            return Ok(None);
        };
        match text.and_then(|text| self.look_up(text)) {
            Some(Ok(principal)) => Ok(Some(principal)),
            Some(Err(Expired)) => Err(Problem::unauthorized("the token has expired")),
            None => Err(match self.0.wrong_tokens.note() {
                Ok(_) => Problem::unauthorized("the token is not known here"),
                Err(wait) => Problem::too_many("too many requests came with a wrong token", wait),
            }),
        }
    }

    /// Whether the token of a request that was let in is still good; that of one that came without any always is.
    pub(super) fn is_still_good(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_none_or(|text| text.and_then(|text| self.holder(text)).is_some())
    }

    /// Whether a request has a good token. Does not count as an attempt.
    pub(super) fn is_of_holder(&self, headers: &HeaderMap) -> bool {
        let token = bearer(headers).flatten();
        token.is_some_and(|text| self.holder(text).is_some())
    }

    /// The name under which the audit knows who asks.
    pub(super) fn actor(&self, headers: &HeaderMap) -> String {
        let known = bearer(headers).flatten().and_then(|text| self.holder(text));
        known.map_or_else(|| AuditEntry::NOBODY.to_owned(), |principal| principal.name)
    }

    fn look_up(&self, text: &str) -> Option<Result<Principal, Expired>> {
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
            // The one who asks does not wait for it, and a use that is not written down is no loss.
            tokio::spawn(async move {
                if let Err(error) = store.touch_token(sha256, now).await {
                    tracing::debug!(%error, "the last use of a token was not noted");
                }
            });
        }
        Some(Ok(principal))
    }

    fn learn(&self, token: NewToken) {
        let principal = Principal {
            name: token.name.to_string(),
            role: token.role,
        };
        let known = Known::new(principal, token.expires_at, 0);
        let mut tokens = self.0.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.sha256, known);
    }

    fn forget(&self, name: &str) {
        let mut tokens = self.0.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, known| known.principal.name != name);
    }

    fn read_tokens<T>(&self, read: impl FnOnce(&HashMap<[u8; 32], Known>) -> T) -> T {
        read(&self.0.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The token was good once.
struct Expired;

fn new_token(
    name: TokenName,
    role: Role,
    created_by: &str,
    expires_at: Option<Timestamp>,
) -> Result<(TokenText, NewToken), AccessError> {
    let text = TokenText::random()?;
    let token = NewToken {
        name,
        role,
        sha256: digest(text.as_str()),
        created_at: Timestamp::now(),
        created_by: created_by.to_owned(),
        expires_at,
    };
    Ok((text, token))
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What stands behind `Authorization: Bearer`. The outer option: whether there is such a header at all. The inner:
/// whether it can be understood; one that cannot is a wrong token.
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
        let words = error.to_string();
        match error {
            AccessError::Taken(_) | AccessError::TooMany => Self::conflict(words),
            AccessError::Reserved(_) => Self::bad_request(words),
            AccessError::Absent(_) => Self::not_found(words),
            AccessError::Store(error) => error.into(),
            AccessError::Random(_) => {
                tracing::error!(error = words, "no token can be made");
                Self::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use lantern_store as store;

    async fn access(dir: &std::path::Path) -> (Access, Arc<Store>, Reader) {
        let store = Arc::new(Store::open(store::StoreConfig::new(dir)).await.unwrap());
        let reader = Reader::open(store.path()).await.unwrap();
        let access = Access::open(Arc::clone(&store), &reader, Config::loopback())
            .await
            .unwrap();
        (access, store, reader)
    }

    fn name(name: &str) -> TokenName {
        TokenName::parse(name).unwrap()
    }

    fn with(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        headers
    }

    #[tokio::test]
    async fn a_token_is_good_from_its_making_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (access, store, reader) = access(dir.path()).await;
        let text = access
            .create(name("ci"), Role::Viewer, "local", None, None)
            .await
            .unwrap();
        assert!(text.as_str().starts_with("lantern_") && text.as_str().len() == 8 + 43);
        assert!(!format!("{text:?}").contains(&text.as_str()[8..]));
        let expected = Principal {
            name: "ci".into(),
            role: Role::Viewer,
        };
        assert_eq!(access.holder(text.as_str()), Some(expected.clone()));
        let bytes = std::fs::read(store.path()).unwrap();
        let secret = text.as_str().as_bytes();
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret),
            "the text is stored"
        );

        // The next start knows it as well.
        let later = Access::open(store, &reader, Config::loopback()).await.unwrap();
        assert_eq!(later.holder(text.as_str()), Some(expected));
        assert!(matches!(
            access
                .create(name("ci"), Role::Operator, "local", None, None)
                .await,
            Err(AccessError::Taken(_))
        ));
        access.revoke(&name("ci"), None).await.unwrap();
        assert_eq!(access.holder(text.as_str()), None);
        assert!(matches!(
            access.revoke(&name("ci"), None).await,
            Err(AccessError::Absent(_))
        ));
        let expired = access
            .create(name("old"), Role::Viewer, "local", Some(Timestamp(1)), None)
            .await
            .unwrap();
        assert_eq!(access.holder(expired.as_str()), None);
    }

    #[tokio::test]
    async fn the_hosts_own_token_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (access, _, reader) = access(dir.path()).await;
        assert!(matches!(
            access.create(name("local"), Role::Viewer, "x", None, None).await,
            Err(AccessError::Reserved(_))
        ));
        let first = access.renew_local().await.unwrap();
        let second = access.renew_local().await.unwrap();
        assert_eq!(access.holder(first.as_str()), None);
        assert_eq!(access.holder(second.as_str()).unwrap().role, Role::Operator);
        assert_eq!(reader.tokens().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn wrong_tokens_are_slowed_and_good_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (access, ..) = access(dir.path()).await;
        let good = access.renew_local().await.unwrap();
        let good = with(&format!("bearer {}", good.as_str()));
        assert_eq!(access.authenticate(&HeaderMap::new()).unwrap(), None);
        let mut two = good.clone();
        two.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        for number in 0..40 {
            let wrong = [
                with("Bearer lantern_x"),
                with("Basic eDp5"),
                with("x"),
                two.clone(),
            ];
            let problem = access.authenticate(&wrong[number % 4]).unwrap_err();
            assert_eq!(
                problem.status().as_u16(),
                if number < 20 { 401 } else { 429 },
                "{number}"
            );
            assert!(access.authenticate(&good).unwrap().is_some());
        }
    }
}
