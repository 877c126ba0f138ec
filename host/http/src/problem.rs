//! Error responses (RFC 9457). A handler returns a [`Problem`]; `guard::finish` adds the path.

use std::any::Any;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use lantern_api as api;
use lantern_lifecycle::LifecycleError;
use lantern_model::batch::clean_text;
use lantern_store::CommitError;
use lantern_store::reader::ReadError;

/// Maximum length of a detail, which may contain text of the client.
const DETAIL_BYTES_MAX: usize = 1024;

/// Maximum number of errors that are listed individually.
const PROBLEMS_MAX: usize = 50;

/// An error response.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Stable identifier for programs; becomes `urn:lantern:problem:…`.
    kind: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: Box<str>,
    /// All errors, if there is more than one.
    problems: Box<[String]>,
    hint: Option<Box<str>>,
    retry_after: Option<Duration>,
    /// The URL of the host that has to do the change.
    host: Option<Box<str>>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl AsRef<str>) -> Self {
        let detail = clean_text(detail.as_ref(), DETAIL_BYTES_MAX).into_boxed_str();
        Self {
            kind,
            title,
            status,
            detail,
            problems: Box::default(),
            hint: None,
            retry_after: None,
            host: None,
        }
    }

    /// The URL of the host that has to do the change, if it is another one.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Adds a suggested action.
    pub fn hint(self, hint: impl Into<Box<str>>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Adds the list of errors, which the detail joins in one sentence.
    fn problems(self, problems: &[String]) -> Self {
        let clean = |problem: &String| clean_text(problem, DETAIL_BYTES_MAX);
        Self {
            problems: problems.iter().take(PROBLEMS_MAX).map(clean).collect(),
            ..self
        }
    }

    /// Prefixes the detail with what was done before the error. The detail then contains everything, so that no client
    /// overlooks it.
    pub fn after(self, done: &str) -> Self {
        Self {
            detail: clean_text(&format!("{done}: {}", self.detail), DETAIL_BYTES_MAX).into_boxed_str(),
            problems: Box::default(),
            ..self
        }
    }

    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Explanation of this occurrence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The request is invalid.
    pub fn bad_request(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is invalid",
            detail,
        )
    }

    /// The request needs a valid token.
    pub fn unauthorized(detail: impl AsRef<str>) -> Self {
        let problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "token",
            "A valid token is required",
            detail,
        );
        problem.hint(
            "send `Authorization: Bearer TOKEN`; on the host's machine, DATA_DIR/operator.token contains one",
        )
    }

    /// The role of the token is insufficient.
    pub fn forbidden(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "role",
            "The role of the token is insufficient",
            detail,
        )
    }

    /// The request conflicts with the current state.
    pub fn conflict(detail: impl AsRef<str>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "conflict",
            "The request conflicts with the current state",
            detail,
        )
    }

    /// Too many attempts; the client may retry after `wait`.
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

    /// The resource does not exist.
    pub fn not_found(detail: impl AsRef<str>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The host is busy; the client may retry.
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

    /// The audit entry of a change cannot be written, so the change was not started.
    pub fn unrecorded(error: &CommitError) -> Self {
        let problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "audit-unavailable",
            "The change was not started",
            format!("failed to write its audit entry: {error}"),
        );
        let problem = Self {
            retry_after: Some(Duration::from_secs(1)),
            ..problem
        };
        problem.hint("changes require an audit entry; check whether the disk is full, and retry")
    }

    /// An internal error; the log has the cause.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "see the log of the host",
        )
    }

    /// The complete response to a request for `uri`.
    pub fn into_body(self, uri: &Uri) -> Response {
        let instance = clean_text(uri.path(), DETAIL_BYTES_MAX);
        let body = api::Problem {
            kind: format!("urn:lantern:problem:{}", self.kind),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.into_string(),
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
            // Zero would invite the client to retry at once.
            headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

/// Stores the problem in the extensions of the response for `guard::finish`.
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
            ReadError::Busy => Self::busy("all database readers are in use; retry"),
            ReadError::PositionGone => Self::bad_request(
                "cursor: the last row of the previous page no longer exists; start again without a cursor",
            ),
            ReadError::TimeLimit { time } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-slow",
                "The query takes too long",
                format!(
                    "no result within {} ms; request fewer rows or use a narrower filter",
                    time.as_millis()
                ),
            ),
            ReadError::Sql(source @ lantern_store::DatabaseError::Unsupported(_)) => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "not-available",
                "Not available with this database",
                source.to_string(),
            ),
            ReadError::Sql(source) if source.is_disconnection() => {
                tracing::warn!(
                    error = source as &dyn std::error::Error,
                    "the database server is unavailable"
                );
                Self::busy("the database server is unavailable at the moment; see /readyz")
            }
            _ => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "failed to read the database for an API request"
                );
                Self::internal()
            }
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        tracing::warn!(%error, "failed to store a change");
        match error {
            CommitError::Failed(_) => Self::internal(),
            _ => Self::busy("the database is not writable at the moment; see /readyz"),
        }
    }
}

impl From<LifecycleError> for Problem {
    fn from(error: LifecycleError) -> Self {
        let hint = error.hint();
        let unprocessable =
            |kind, title, detail: String| Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind, title, detail);
        let problem = match error {
            LifecycleError::NoPlugin(_) | LifecycleError::NoVersion { .. } => {
                Self::not_found(error.to_string())
            }
            LifecycleError::NotFound(reason) => Self::not_found(reason),
            LifecycleError::Conflict(reason) => Self::conflict(reason),
            LifecycleError::Elsewhere { ref url, .. } => Self {
                host: Some(url.as_str().into()),
                ..Self::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "another-host",
                    "Another host runs the plugin",
                    error.to_string(),
                )
            },
            LifecycleError::Load(source) => unprocessable(
                "component-refused",
                "The component cannot be loaded",
                chain(source),
            ),
            LifecycleError::Signature { fault, .. } => unprocessable(
                "signature-refused",
                "The component has no valid signature",
                fault.to_string(),
            ),
            LifecycleError::Settings { .. } => unprocessable(
                "settings-forbid",
                "The settings of the plugin prevent it from running",
                chain(error),
            ),
            LifecycleError::BadSettings(problems) => {
                let title = "The settings are invalid";
                unprocessable("bad-settings", title, problems.join("; ")).problems(&problems)
            }
            LifecycleError::Tables(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                let title = "The tables of the plugin are incompatible with the database";
                unprocessable("tables-refused", title, reasons.join("; ")).problems(&reasons)
            }
            LifecycleError::NotPermitted(reason) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "broker-permission",
                "The broker does not permit a request of the host",
                reason,
            ),
            LifecycleError::Unavailable(reason) => Self::busy(reason),
            LifecycleError::Failed(reason) => {
                tracing::error!(reason, "an operation failed");
                Self::internal()
            }
        };
        match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// An error with its causes on one line.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

pub async fn no_such_path() -> Problem {
    Problem::not_found("API routes are under /api/v1; see /api/v1/docs")
}

/// Axum adds the header `Allow`.
pub async fn no_such_method(method: Method) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "Method not allowed",
        format!("{method} is not allowed for this path; see the header Allow"),
    )
}

/// The response for a handler that panicked. The panic hook has already logged the panic.
pub fn from_panic(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("the handler of a request panicked");
    Problem::internal().into_response()
}
