//! Answers that say no, as RFC 9457 has them. A handler returns a [`Problem`]; `guard::finish` adds the path.

use std::any::Any;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use lantern_api as api;
use lantern_lifecycle::LifecycleError;
use lantern_model::batch::clean_text;
use lantern_store::CommitError;
use lantern_store::reader::ReadError;

/// Longest explanation; it may hold what somebody sent.
const DETAIL_BYTES_MAX: usize = 1024;

/// Most problems that are told one by one.
const PROBLEMS_MAX: usize = 50;

/// Why there is no other answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Stable, for programs: becomes `urn:lantern:problem:…`.
    kind: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    /// Each thing that is wrong, where it is more than one.
    problems: Box<[String]>,
    hint: Option<Box<str>>,
    retry_after: Option<Duration>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl AsRef<str>) -> Self {
        let detail = clean_text(detail.as_ref(), DETAIL_BYTES_MAX);
        Self {
            kind,
            title,
            status,
            detail,
            problems: Box::default(),
            hint: None,
            retry_after: None,
        }
    }

    /// Adds what can be done about it.
    pub fn hint(self, hint: impl Into<Box<str>>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds everything that is wrong, one by one; the detail has it in one sentence.
    fn problems(self, problems: &[String]) -> Self {
        let clean = |problem: &String| clean_text(problem, DETAIL_BYTES_MAX);
        Self {
            problems: problems.iter().take(PROBLEMS_MAX).map(clean).collect(),
            ..self
        }
    }

    /// Says first what was done before it went wrong. All is in the detail then, so that nobody reads past it.
    pub fn after(self, done: &str) -> Self {
        Self {
            detail: clean_text(&format!("{done}: {}", self.detail), DETAIL_BYTES_MAX),
            problems: Box::default(),
            ..self
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong in this case.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A parameter of the request cannot be used.
    pub fn bad_request(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request cannot be understood",
            detail,
        )
    }

    /// Without a good token this is not answered.
    pub fn unauthorized(detail: impl AsRef<str>) -> Self {
        let problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "token",
            "A good token is needed",
            detail,
        );
        problem.hint(
            "send it as `Authorization: Bearer TOKEN`; on the host's machine, one is in DATA_DIR/operator.token",
        )
    }

    /// The token is good, but not for this.
    pub fn forbidden(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "role",
            "The token does not allow this",
            detail,
        )
    }

    /// What is asked for does not go together with what is there.
    pub fn conflict(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "conflict",
            "This does not go together with what is there",
            detail,
        )
    }

    /// The same was tried too often; it may be tried again after `wait`.
    pub fn too_many(detail: impl AsRef<str>, wait: Duration) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "Too many attempts",
            detail,
        );
        Self {
            retry_after: Some(wait),
            ..problem
        }
    }

    /// There is nothing of this name.
    pub fn not_found(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// Too much to do at the moment.
    pub fn busy(detail: impl AsRef<str>) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "The host is busy",
            detail,
        );
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..problem
        }
    }

    /// The audit entry of a change cannot be written, so the change was not begun.
    pub fn unrecorded(error: &CommitError) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "audit-unavailable",
            "The change was not begun",
            format!("its entry in the audit cannot be written: {error}"),
        );
        let problem = Self {
            retry_after: Some(Duration::from_secs(1)),
            ..problem
        };
        problem.hint("no change is made without an entry; see whether the disk is full, and try again")
    }

    /// The host failed, and its log says why.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The host failed",
            "the host's log says why",
        )
    }

    /// The whole answer, for a request to `uri`.
    pub fn into_body(self, uri: &Uri) -> Response {
        let instance = clean_text(uri.path(), DETAIL_BYTES_MAX);
        let body = api::Problem {
            kind: format!("urn:lantern:problem:{}", self.kind),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            instance,
            problems: self.problems.into(),
            hint: self.hint.map(Into::into),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Zero would be an invitation to try at once.
            headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

/// Leaves the problem in the response's extensions, where `guard::finish` finds it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Busy => Self::busy("all readers of the database are in use; try again"),
            ReadError::PlaceGone => {
                Self::bad_request("cursor: the row where the page ended is gone; begin without one")
            }
            ReadError::TimeLimit { time } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-slow",
                "The question takes too long",
                format!(
                    "no answer within {} ms; ask for fewer rows or a narrower filter",
                    time.as_millis()
                ),
            ),
            _ => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a read for the API failed"
                );
                Self::internal()
            }
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        tracing::warn!(%error, "a change could not be stored");
        Self::busy("the database cannot be written at the moment; /readyz says why")
    }
}

impl From<LifecycleError> for Problem {
    fn from(error: LifecycleError) -> Self {
        let hint = error.hint();
        let refused =
            |kind, title, detail: String| Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail);
        let problem = match error {
            LifecycleError::NoPlugin(_) | LifecycleError::NoVersion { .. } => {
                Self::not_found(error.to_string())
            }
            LifecycleError::NotFound(words) => Self::not_found(words),
            LifecycleError::Conflict(words) => Self::conflict(words),
            LifecycleError::Load(source) => {
                refused("component-refused", "The component is refused", chain(source))
            }
            LifecycleError::Signature { fault, .. } => refused(
                "signature-refused",
                "The component's signature is not good",
                fault.to_string(),
            ),
            LifecycleError::Settings { .. } => refused(
                "settings-forbid",
                "The plugin may not run with its settings",
                chain(error),
            ),
            LifecycleError::BadSettings(problems) => {
                let title = "The settings cannot be used";
                refused("bad-settings", title, problems.join("; ")).problems(&problems)
            }
            LifecycleError::Tables(reasons) => {
                let title = "The database refuses the plugin's tables";
                refused("tables-refused", title, reasons.join("; ")).problems(&reasons)
            }
            LifecycleError::Unavailable(words) => Self::busy(words),
        };
        match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

pub async fn no_such_path() -> Problem {
    Problem::not_found("the API begins at /api/v1; / lists what there is")
}

/// Axum adds which methods there are.
pub async fn no_such_method(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "This cannot be done here",
        format!("{method} is not possible here; the header Allow says what is"),
    )
}

/// Answers for a handler that panicked. The panic itself has been printed by the panic hook.
pub fn from_panic(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a request made its handler panic");
    Problem::internal().into_response()
}
