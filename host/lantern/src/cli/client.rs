//! How commands talk to a running host: requests, answers, and turning its problems into failures.
//!
//! A token is only sent to the host that it is for. One that is found through a data directory has to prove first that
//! it is the host of that directory; a source that components are fetched from gets a token only by its own flag.

mod locate;
mod verified;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request};

use super::Failure;
use lantern_http::SIGNATURE_HEADER;
use lantern_lifecycle::Component;
use lantern_trust::identity::Identity;

use locate::Target;
use verified::Unproven;

/// Largest answer that is read whole, in bytes. A page of rows has at most 8 MiB and what JSON adds to it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Longest time to connect to a host, which is mostly on this machine.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Longest time until an answer begins. Some changes compile a plugin first.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// Longest time for an answer that is read whole.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Which host is meant, and by what right. Every command that talks to a running host flattens it into its own.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which host")]
pub struct HostArgs {
    /// The host's address, such as http://127.0.0.1:7070; without it and --data-dir, the one in $LANTERN_HOST.
    #[arg(long, value_name = "URL")]
    host: Option<String>,
    /// The host with this data directory; without --host it tells where the host is [default: as for serve].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A file with the token; without it, $LANTERN_TOKEN, then operator.token in the data directory.
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

    /// The data directory that was named.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Whether a host was named on the command line.
    pub fn is_named(&self) -> bool {
        self.host.is_some() || self.data_dir.is_some()
    }
}

/// A problem as the API has it.
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
    /// Each thing that is wrong, where it is more than one.
    #[serde(default)]
    problems: Vec<String>,
    hint: Option<String>,
}

/// Talks to one host.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
    /// What the host has to prove on each connection.
    identity: Option<Identity>,
}

/// A part of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl Client {
    /// Finds the host and the token. Does not connect.
    ///
    /// # Errors
    /// A [`Failure`] that says where no host or token was found.
    pub fn open(args: &HostArgs) -> Result<Self, Failure> {
        Ok(Self::to(locate::find(args)?))
    }

    /// A host that a component is fetched from. It is another one than the host that the command is for, so it gets no
    /// token but the one that the user names for it.
    ///
    /// # Errors
    /// A [`Failure`] when the address or the file with the token cannot be used.
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

    /// Asks for something. `path` begins with `/`.
    ///
    /// # Errors
    /// A [`Failure`]: the host cannot be reached, has a problem, or answers something else than expected.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None)
    }

    /// The newest `limit` items of a list that is answered in pages, fewer when there are no more. `list` is its path with
    /// its query, which may be empty but begins with `?`; `page_max` is how many are asked for at once.
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
            let asked = (limit - items.len()).min(page_max);
            let page: Page<T> = self.get_json(&format!("{list}&limit={asked}{cursor}"))?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) if items.len() < limit => cursor = format!("&cursor={next}"),
                _ => return Ok(items),
            }
        }
    }

    /// As [`Client::get_json`], also when the answer's status is an error; answers with the status. For readiness,
    /// which says in the same words what is well and what is not.
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

    /// Asks for a component, and for the signature that the host keeps with it.
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

    /// Sends a value to be acted upon. An answer without a body is read as `null`, so `T` may be `()`.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn post_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(("application/json", json(body)?)))
    }

    /// As [`Client::post_json`], for what may take long: the answer is awaited for as long as the host works on it.
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

    /// As [`Client::post_json`], with PUT.
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

    /// Has something removed.
    ///
    /// # Errors
    /// As for [`Client::get_json`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None)
    }

    /// The lines of an answer as they come, for as long as the host sends some.
    ///
    /// # Errors
    /// As for [`Client::get_json`]; and so may each line.
    pub fn lines(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<String, Failure>> + use<>, Failure> {
        // The host may be silent for long between two lines.
        let agent = agent(Some(ANSWER_TIME), None, self.identity.clone());
        let answer = self.send(&agent, Method::GET, path, Sent::body(None))?;
        if answer.status >= 400 {
            let (status, bytes) = answer.whole(self)?;
            return Err(problem(status, &bytes));
        }
        let url = self.url.clone();
        let lines = BufReader::new(answer.body.into_reader()).lines();
        Ok(lines.map(move |line| {
            line.with_context(|| format!("{url} ended its answer early"))
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
            .map_err(|error| Failure::new(anyhow!(error).context("cannot make the request")))?
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
        Failure::new(anyhow!(error).context(format!("cannot ask the host at {}", self.url)))
            .hint("is it running there? `lantern serve` starts one")
    }

    fn unproven(&self, why: &str) -> Failure {
        let words = format!(
            "{} is not the host of this data directory; nothing was sent to it",
            self.url
        );
        Failure::new(anyhow!("{why}").context(words)).hint(
            "the host may have been killed and another program may have its port: restart the host; \
             or name the host with --host URL",
        )
    }

    fn odd_answer(&self, path: &str, error: serde_json::Error) -> Failure {
        let words = format!("{}{path} gave an answer that cannot be understood", self.url);
        Failure::new(anyhow!(error).context(words)).hint("is it a Lantern of another version?")
    }
}

/// What goes along with a request.
struct Sent<'a> {
    /// With its type.
    body: Option<(&'a str, Vec<u8>)>,
    /// Of the component in the body.
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
    /// Of the component in the body, where the answer has one.
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

/// A proxy of the environment is not for a host on this machine, and a token follows no redirection.
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
        .context("cannot write the request as JSON")
        .map_err(Failure::new)
}

fn problem(status: u16, bytes: &[u8]) -> Failure {
    let Ok(problem) = serde_json::from_slice::<Problem>(bytes) else {
        return Failure::new(anyhow!("the host answered with status {status}"))
            .hint("is it a Lantern, and not another program at that address?");
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
    fn problems_become_failures() {
        let body = br#"{"type":"x","title":"No","status":403,"detail":"because","hint":"do","instance":"/"}"#;
        assert_eq!(problem(403, body).render(), "error: No\n  - because\nhint: do\n");
        let body = br#"{"title":"No","detail":"a; b","problems":["a","b"]}"#;
        assert_eq!(problem(422, body).render(), "error: No\n  - a\n  - b\n");
        assert!(problem(502, b"<html>").render().contains("status 502"));
    }
}
