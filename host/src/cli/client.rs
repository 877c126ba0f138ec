//! How commands talk to a running host: finding it, finding the token, and turning its problems into failures.
//!
//! A token is only sent to a host that it is for: the one in the data directory goes to the host of that directory,
//! and to another one only when both are named.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request};

use super::Failure;
use crate::app::{HOST_FILE, TOKEN_FILE};
use crate::config::{Flag, Sources, resolve};
use crate::http::SIGNATURE_HEADER;
use crate::lifecycle::Parcel;

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

    /// Whether a host was named on the command line.
    pub fn is_named(&self) -> bool {
        self.host.is_some() || self.data_dir.is_some()
    }

    /// Another host by its address, with the same token.
    pub fn at(&self, url: &str) -> Self {
        Self {
            host: Some(url.to_owned()),
            ..self.clone()
        }
    }
}

/// What a running host leaves in its data directory.
#[derive(Deserialize)]
struct HostFile {
    url: String,
    pid: i32,
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
        let named = match (&args.host, &args.data_dir) {
            (Some(host), _) => Some(host.clone()),
            (None, Some(_)) => None,
            (None, None) => variable("LANTERN_HOST"),
        };
        let (url, token_dir) = match named {
            Some(url) => (url, args.data_dir.clone()),
            None => {
                let dir = data_dir(args);
                (url_of(&dir)?, Some(dir))
            }
        };
        let url = url.trim_end_matches('/').to_owned();
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(Failure::usage(format!("{url:?} is not the address of a host"))
                .hint("give http://HOST:PORT; a host behind TLS is reached through a tunnel"));
        }
        Ok(Self {
            agent: agent(Some(BODY_TIME)),
            url,
            token: token(args, token_dir.as_deref())?,
        })
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
    pub fn get_component(&self, path: &str) -> Result<Parcel, Failure> {
        let answer = self.send(&self.agent, Method::GET, path, Sent::body(None))?;
        let signature = answer.signature.clone();
        let (status, component) = answer.whole(self)?;
        if status >= 400 {
            return Err(problem(status, &component));
        }
        Ok(Parcel { component, signature })
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
        self.call_with(&agent_waiting(None, None), Method::POST, path, Sent::body(body))
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
    pub fn post_component<T: DeserializeOwned>(&self, path: &str, parcel: Parcel) -> Result<T, Failure> {
        let sent = Sent {
            body: Some(("application/wasm", parcel.component)),
            signature: parcel.signature,
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
        let answer = self.send(&agent(None), Method::GET, path, Sent::body(None))?;
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
        Failure::new(anyhow!(error).context(format!("cannot ask the host at {}", self.url)))
            .hint("is it running there? `lantern serve` starts one")
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
fn agent(body_time: Option<Duration>) -> ureq::Agent {
    agent_waiting(Some(ANSWER_TIME), body_time)
}

fn agent_waiting(answer_time: Option<Duration>, body_time: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_recv_response(answer_time)
        .timeout_recv_body(body_time)
        .build()
        .into()
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

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// As `lantern serve` would have it: flag, environment, configuration file, default.
fn data_dir(args: &HostArgs) -> PathBuf {
    let flag = args.data_dir.as_ref().map(|dir| Flag {
        setting: "data_dir",
        name: "--data-dir",
        value: dir.into(),
    });
    let file = std::env::var_os("LANTERN_CONFIG").map(PathBuf::from);
    let sources = Sources::of_process(file, flag.into_iter().collect());
    resolve(&sources).0.data_dir()
}

/// The address of the host that has this data directory.
fn url_of(dir: &Path) -> Result<String, Failure> {
    let nobody = |cause: Option<String>| {
        let words = format!("no host runs with data directory {}", dir.display());
        let failure = Failure::new(anyhow!(words)).details(cause.into_iter().collect());
        failure.hint("start one with `lantern serve`, or name another with --data-dir or --host")
    };
    let path = dir.join(HOST_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(nobody(None)),
        Err(error) => {
            return Err(Failure::new(
                anyhow!(error).context(format!("cannot read {}", path.display())),
            ));
        }
    };
    let file: HostFile = serde_json::from_str(&text)
        .with_context(|| format!("{} cannot be understood", path.display()))
        .map_err(Failure::new)?;
    if is_gone(file.pid) {
        return Err(nobody(Some(format!(
            "process {} did not stop in order and left {HOST_FILE} behind",
            file.pid
        ))));
    }
    Ok(file.url)
}

/// Another program may have the port by now, and must not be sent the token.
fn is_gone(pid: i32) -> bool {
    let alive = |pid| !matches!(test_kill_process(pid), Err(Errno::SRCH));
    !Pid::from_raw(pid).is_some_and(alive)
}

fn token(args: &HostArgs, dir: Option<&Path>) -> Result<Option<String>, Failure> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the token in {}", path.display()));
        text.and_then(|text| clean(&text).with_context(|| format!("{} holds no token", path.display())))
            .map_err(Failure::new)
    };
    if let Some(path) = &args.token_file {
        return read(path).map(Some);
    }
    if let Some(text) = variable("LANTERN_TOKEN") {
        return clean(&text)
            .map(Some)
            .ok_or_else(|| Failure::usage("LANTERN_TOKEN holds no token"));
    }
    // Who may not read it can still ask what needs no token.
    Ok(dir.and_then(|dir| read(&dir.join(TOKEN_FILE)).ok()))
}

/// One word that can stand in a header.
fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(host: Option<&str>, dir: Option<&Path>) -> HostArgs {
        HostArgs {
            host: host.map(str::to_owned),
            data_dir: dir.map(Path::to_owned),
            token_file: None,
        }
    }

    fn refused(args: &HostArgs) -> String {
        Client::open(args).err().expect("it finds a host").render()
    }

    #[test]
    fn a_host_is_found_by_its_data_directory_and_gets_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let text = refused(&args(None, Some(dir.path())));
        assert!(
            text.starts_with("error: no host runs with data directory"),
            "{text}"
        );
        assert!(text.contains("`lantern serve`"), "{text}");

        let write = |pid: u32| {
            let text = format!(r#"{{"url":"http://127.0.0.1:7","pid":{pid}}}"#);
            std::fs::write(dir.path().join(HOST_FILE), text).unwrap();
        };
        write(std::process::id());
        let found = Client::open(&args(None, Some(dir.path()))).ok().unwrap();
        assert_eq!(
            (found.url(), found.token.as_deref()),
            ("http://127.0.0.1:7", None)
        );
        std::fs::write(dir.path().join(TOKEN_FILE), "lantern_x\n").unwrap();
        let found = Client::open(&args(None, Some(dir.path()))).ok().unwrap();
        assert_eq!(found.token.as_deref(), Some("lantern_x"));

        // Greater than any process number.
        write(i32::MAX as u32);
        let text = refused(&args(None, Some(dir.path())));
        assert!(text.contains("left host.json behind"), "{text}");
    }

    #[test]
    fn a_token_goes_only_where_it_belongs() {
        let elsewhere = Client::open(&args(Some("http://10.0.0.7:7070/"), None))
            .ok()
            .unwrap();
        assert_eq!(
            (elsewhere.url(), elsewhere.token.as_deref()),
            ("http://10.0.0.7:7070", None)
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(TOKEN_FILE), "lantern_x").unwrap();
        let both = Client::open(&args(Some("http://a"), Some(dir.path())))
            .ok()
            .unwrap();
        assert_eq!(both.token.as_deref(), Some("lantern_x"));
        for bad in [
            "",
            "127.0.0.1:7070",
            "https://a",
            "http://",
            "http://a/b",
            "http://b@a",
        ] {
            assert!(
                refused(&args(Some(bad), None)).contains("is not the address"),
                "{bad}"
            );
        }
        let with_file = HostArgs {
            token_file: Some(dir.path().join("missing")),
            ..args(Some("http://a"), None)
        };
        assert!(refused(&with_file).contains("cannot read the token"));
    }

    #[test]
    fn problems_become_failures() {
        let body = br#"{"type":"x","title":"No","status":403,"detail":"because","hint":"do","instance":"/"}"#;
        assert_eq!(problem(403, body).render(), "error: No\n  - because\nhint: do\n");
        let body = br#"{"title":"No","detail":"a; b","problems":["a","b"]}"#;
        assert_eq!(problem(422, body).render(), "error: No\n  - a\n  - b\n");
        assert!(problem(502, b"<html>").render().contains("status 502"));
    }
}
