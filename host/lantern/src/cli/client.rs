//! HTTP client for a running host: requests, responses, and conversion of API problems into failures.
//!
//! A token is sent only to its host. A host that is found through a data directory must first prove its identity; a
//! download server for components receives only the token from `--from-token-file`.

mod locate;
mod verified;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, Request};

use super::{Failure, print, print_json};
use lantern_api::{Page, Problem};
use lantern_http::SIGNATURE_HEADER;
use lantern_lifecycle::Component;
use lantern_trust::identity::Identity;

use locate::Target;
use verified::Unproven;

/// Largest response that is read completely, in bytes. A page of rows has at most 8 MiB plus the overhead of JSON.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Connect timeout. The host is usually on this machine.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Timeout until a response begins. Some requests compile a plugin first.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// Timeout for reading a complete response.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Options that name a host and its token; part of every command that uses a running host.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Host options")]
pub struct HostArgs {
    /// URL of the host, such as http://127.0.0.1:7070 [default: $LANTERN_HOST, unless --data-dir is given].
    #[arg(long, value_name = "URL")]
    host: Option<String>,
    /// Data directory of the host; locates the host if --host is not given [default: as for serve].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with the API token [default: $LANTERN_TOKEN, then operator.token in the data directory].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl HostArgs {
    /// The host at `url` with this data directory.
    pub fn of(url: &str, data_dir: &Path) -> Self {
        Self {
            host: Some(url.to_owned()),
            data_dir: Some(data_dir.to_owned()),
            token_file: None,
        }
    }

    /// The data directory on the command line.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Whether the command line names a host.
    pub fn is_named(&self) -> bool {
        self.host.is_some() || self.data_dir.is_some()
    }
}

/// Options of a command that prints what a host returns.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

impl OutputArgs {
    /// The client of the host.
    ///
    /// # Errors
    /// See [`Client::open`].
    pub fn open(&self) -> Result<Client, Failure> {
        Client::open(&self.host)
    }

    /// Prints a value as JSON or as text.
    ///
    /// # Errors
    /// A [`Failure`] if standard output cannot be written.
    pub fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        render: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => print_json(value),
            false => print(&render(value)),
        }
    }
}

/// Client of one host.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
    /// Identity that the host must prove on each connection.
    identity: Option<Identity>,
}

/// Hint for a response that this version cannot parse.
pub const OTHER_VERSION: &str = "check that the host and this program have the same version";

impl Client {
    /// Finds the host and the token. Does not connect.
    ///
    /// # Errors
    /// A [`Failure`] if no host was found, or its token cannot be read.
    pub fn open(args: &HostArgs) -> Result<Self, Failure> {
        Ok(Self::to(locate::find(args)?))
    }

    /// Client of a host from which a component is downloaded. It differs from the host that the command changes, so it
    /// receives only the token that the user names for it.
    ///
    /// # Errors
    /// A [`Failure`] if the URL is invalid or the token file cannot be read.
    pub fn source(url: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self::to(Target {
            url: locate::checked_url(url)?,
            token: token_file.map(locate::token_in).transpose()?,
            identity: None,
        }))
    }

    fn to(target: Target) -> Self {
        let Target { url, token, identity } = target;
        Self {
            agent: agent(Some(ANSWER_TIME), Some(BODY_TIME), identity.clone()),
            url,
            token,
            identity,
        }
    }

    /// The host's address, `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a GET request. `path` begins with `/`.
    ///
    /// # Errors
    /// A [`Failure`] if the host is unreachable, returns a problem, or returns an unexpected response.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None)
    }

    /// Reads at most `limit` items of a paginated list, newest first. `list` is its path with its query, which may be empty
    /// but begins with `?`; `page_max` is the size of a page.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn newest<T: DeserializeOwned>(
        &self,
        list: &str,
        limit: u32,
        page_max: usize,
    ) -> Result<Vec<T>, Failure> {
        let limit = limit as usize;
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page_size = (limit - items.len()).min(page_max);
            let page: Page<T> = self.get_json(&format!("{list}&limit={page_size}{cursor}"))?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) if items.len() < limit => cursor = format!("&cursor={next}"),
                _ => return Ok(items),
            }
        }
    }

    /// Like [`Client::get_json`], but also returns the body of an error status, with the status. For readiness, whose
    /// body has the same form for every status.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn get_json_of_any_status<T: DeserializeOwned>(&self, path: &str) -> Result<(u16, T), Failure> {
        let (status, bytes) = self
            .send(&self.agent, Method::GET, path, Sent::body(None))?
            .whole(self)?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((status, value)),
            Err(_) if status >= 400 => Err(problem(status, &bytes)),
            Err(error) => Err(self.odd_answer(path, error)),
        }
    }

    /// Downloads a component with its signature.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn get_component(&self, path: &str) -> Result<Component, Failure> {
        let answer = self.send(&self.agent, Method::GET, path, Sent::body(None))?;
        let signature = answer.signature.clone();
        let (status, component) = answer.whole(self)?;
        if status >= 400 {
            return Err(problem(status, &component));
        }
        Ok(Component {
            bytes: component,
            signature,
        })
    }

    /// Sends a POST request. An empty response is read as `null`, so `T` may be `()`.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn post_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(("application/json", json(body)?)))
    }

    /// Like [`Client::post_json`], without a timeout, for operations that take long.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn post_json_for_long<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = Some(("application/json", json(body)?));
        self.call_with(
            &agent(None, None, self.identity.clone()),
            Method::POST,
            path,
            Sent::body(body),
        )
    }

    /// Sends a PUT request.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn put_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::PUT, path, Some(("application/json", json(body)?)))
    }

    /// Uploads a component with its signature.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn post_component<T: DeserializeOwned>(
        &self,
        path: &str,
        component: Component,
    ) -> Result<T, Failure> {
        let sent = Sent {
            body: Some(("application/wasm", component.bytes)),
            signature: component.signature,
        };
        self.call_with(&self.agent, Method::POST, path, sent)
    }

    /// Sends a DELETE request.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None)
    }

    /// Reads a streaming response line by line until it ends.
    ///
    /// # Errors
    /// As for [`Client::get_json`]; each line can fail as well.
    pub fn lines(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<String, Failure>> + use<>, Failure> {
        // There may be a long time between two lines.
        let agent = agent(Some(ANSWER_TIME), None, self.identity.clone());
        let answer = self.send(&agent, Method::GET, path, Sent::body(None))?;
        if answer.status >= 400 {
            let (status, bytes) = answer.whole(self)?;
            return Err(problem(status, &bytes));
        }
        let url = self.url.clone();
        let lines = BufReader::new(answer.body.into_reader()).lines();
        Ok(lines.map(move |line| {
            line.with_context(|| format!("{url} closed the response early"))
                .map_err(Failure::new)
        }))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<T, Failure> {
        self.call_with(&self.agent, method, path, Sent::body(body))
    }

    fn call_with<T: DeserializeOwned>(
        &self,
        agent: &ureq::Agent,
        method: Method,
        path: &str,
        sent: Sent<'_>,
    ) -> Result<T, Failure> {
        let (status, bytes) = self.send(agent, method, path, sent)?.whole(self)?;
        if status >= 400 {
            return Err(problem(status, &bytes));
        }
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| self.odd_answer(path, error))
    }

    fn send(
        &self,
        agent: &ureq::Agent,
        method: Method,
        path: &str,
        Sent { body, signature }: Sent<'_>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, STANDARD.encode(signature));
        }
        let sent = match body {
            None => request.body(()).map(|request| agent.run(request)),
            Some((content_type, bytes)) => request
                .header("content-type", content_type)
                .body(bytes)
                .map(|request| agent.run(request)),
        };
        let response = sent
            .map_err(|error| Failure::new(anyhow!(error).context("failed to create the request")))?
            .map_err(|error| self.unreachable(error))?;
        let (parts, body) = response.into_parts();
        let signature = parts.headers.get(SIGNATURE_HEADER);
        Ok(Answer {
            signature: signature.and_then(|value| STANDARD.decode(value.as_bytes()).ok()),
            status: parts.status.as_u16(),
            body,
        })
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let error = match error {
            ureq::Error::Other(cause) if cause.is::<Unproven>() => return self.unproven(&cause.to_string()),
            error => error,
        };
        Failure::new(anyhow!(error).context(format!("failed to reach the host at {}", self.url)))
            .hint("check that the host is running; `lantern serve` starts one")
    }

    fn unproven(&self, why: &str) -> Failure {
        let message = format!(
            "{} is not the host of this data directory; no request was sent",
            self.url
        );
        Failure::new(anyhow!("{why}").context(message)).hint(
            "if the host was killed, another program may use its port: restart the host, or name it with --host URL",
        )
    }

    fn odd_answer(&self, path: &str, error: serde_json::Error) -> Failure {
        let message = format!("unexpected response from {}{path}", self.url);
        Failure::new(anyhow!(error).context(message)).hint(OTHER_VERSION)
    }
}

/// Body and signature of a request.
struct Sent<'a> {
    /// Content type and bytes.
    body: Option<(&'a str, Vec<u8>)>,
    /// Signature of the component in the body.
    signature: Option<Vec<u8>>,
}

impl<'a> Sent<'a> {
    fn body(body: Option<(&'a str, Vec<u8>)>) -> Self {
        Self {
            body,
            signature: None,
        }
    }
}

struct Answer {
    status: u16,
    /// Signature of the component in the body.
    signature: Option<Vec<u8>>,
    body: ureq::Body,
}

impl Answer {
    fn whole(mut self, client: &Client) -> Result<(u16, Vec<u8>), Failure> {
        let bytes = self
            .body
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| client.unreachable(error))?;
        Ok((self.status, bytes))
    }
}

/// Creates an agent without proxy, because the host is usually on this machine, and without redirects, because they could
/// send the token to another server.
fn agent(
    answer_time: Option<Duration>,
    body_time: Option<Duration>,
    identity: Option<Identity>,
) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_recv_response(answer_time)
        .timeout_recv_body(body_time)
        .build();
    match identity {
        Some(identity) => verified::agent(config, identity),
        None => config.into(),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value)
        .context("failed to serialize the request")
        .map_err(Failure::new)
}

fn problem(status: u16, bytes: &[u8]) -> Failure {
    let Ok(problem) = serde_json::from_slice::<Problem>(bytes) else {
        return Failure::new(anyhow!("the host returned status {status}"))
            .hint("check that this is the address of a Lantern host");
    };
    let details = if problem.problems.is_empty() {
        vec![problem.detail]
    } else {
        problem.problems
    };
    let failure = Failure::new(anyhow!(problem.title)).details(details);
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_problem_becomes_a_failure() {
        let body = br#"{"type":"x","title":"No","status":403,"detail":"because","hint":"do","instance":"/"}"#;
        assert_eq!(problem(403, body).render(), "error: No\n  - because\nhint: do\n");
        let body =
            br#"{"type":"x","title":"No","status":422,"detail":"a; b","problems":["a","b"],"instance":"/"}"#;
        assert_eq!(problem(422, body).render(), "error: No\n  - a\n  - b\n");
        assert!(problem(502, b"<html>").render().contains("status 502"));
    }
}
