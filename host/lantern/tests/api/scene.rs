//! The API with a token for each role, for tests that make changes.

use lantern_http::{Config, Role, Route, TokenText, route_table};
use lantern_model::actor::Actor;
use lantern_model::schema::TokenName;

use super::*;

/// The API, with a token for each role.
pub struct Scene {
    pub database: Database,
    pub api: Router,
    pub routes: Vec<Route>,
    pub viewer: TokenText,
    pub operator: TokenText,
}

impl Scene {
    pub async fn at(config: Config) -> Self {
        Self::over(Database::new(), config).await
    }

    /// Creates the scene with the signature policy of the database.
    pub async fn over(database: Database, config: Config) -> Self {
        known(&database);
        let state = database.state_at(config).await;
        let routes = route_table(&state);
        let token = async |name: &str, role| {
            let name = TokenName::parse(name).unwrap();
            state
                .access
                .create(name, role, &Actor::Local, None, None)
                .await
                .unwrap()
        };
        Self {
            viewer: token("looks", Role::Viewer).await,
            operator: token("acts", Role::Operator).await,
            database,
            api: router(state),
            routes,
        }
    }

    pub async fn near() -> Self {
        Self::at(Config::loopback()).await
    }

    /// Returns all host state that a change could modify, except the audit.
    pub fn contents(&self) -> Vec<String> {
        let connection = self.database.writer();
        let mut tables = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('_lantern_audit') ORDER BY name")
            .unwrap();
        let names: Vec<String> = tables
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let count = |name: &String| -> String {
            let sql = format!("SELECT count(*) FROM \"{name}\"");
            let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            format!("{name} {rows}")
        };
        names.iter().map(count).collect()
    }

    /// Returns the newest audit entries as `actor action outcome detail`, without the entries that precede a change.
    pub fn audit(&self, count: usize) -> Vec<String> {
        let connection = self.database.writer();
        let sql = "SELECT actor || ' ' || action || ' ' || outcome || ' ' || detail FROM _lantern_audit \
                   WHERE outcome <> 'started' ORDER BY id DESC LIMIT ?1";
        let mut statement = connection.prepare(sql).unwrap();
        statement
            .query_map([count as i64], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:7070");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, text) = send(&self.api, request.body(body).unwrap()).await;
        let status = response.status().as_u16();
        if status >= 400 {
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json",
                "{method} {path}"
            );
        }
        assert_eq!(
            response.headers().contains_key("www-authenticate"),
            status == 401,
            "{method} {path}"
        );
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 429 || status == 503,
            "{method} {path}"
        );
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        (status, text)
    }

    /// Sends a call of the operator.
    pub async fn act(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> (u16, Value) {
        let token = bearer(&self.operator);
        let mut headers = vec![("authorization", token.as_str())];
        if !content_type.is_empty() {
            headers.push(("content-type", content_type));
        }
        let (status, text) = self.call(method, path, &headers, body.into()).await;
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        (status, value)
    }

    /// Sends a call of the operator with a JSON body.
    pub async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let token = bearer(&self.operator);
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
        ];
        self.call("POST", path, &headers, Body::from(body.to_owned()))
            .await
    }
}

pub fn bearer(token: &TokenText) -> String {
    format!("Bearer {}", token.as_str())
}

/// Returns an address that matches the route, for [`Scene`]'s database.
pub fn path_of(route: &Route) -> String {
    let mut segments = route.path.split('/').map(|segment| match segment {
        "{id}" => "7",
        "{row}" => "2:3:0",
        segment if segment.starts_with('{') => "things",
        segment => segment,
    });
    let mut path = segments.next().unwrap_or_default().to_owned();
    for segment in segments {
        path = format!("{path}/{segment}");
    }
    match route.path.rsplit('/').next() {
        Some("differences") => path + "?from=0.2.0&to=0.2.0",
        Some("written" | "component" | "description") => path + "?version=0.2.0",
        Some("prove") => path + "?nonce=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        Some("facets") => path + "?columns=ok",
        Some("sql") => path + "?query=SELECT%201",
        Some("series") => path + "?measures=used",
        Some("export") if route.path.contains("tables") => path + "?format=csv",
        Some("trace") => path + "?table=things&key=1",
        _ => path,
    }
}

/// Adds an installed but stopped plugin with a version that has a description, a dead letter, a finished rebuild and a
/// row.
fn known(database: &Database) {
    let description = serde_json::json!({
        "name": "things", "version": "0.2.0", "doc": "", "sources": [], "tables": [], "writes": [],
    });
    let writer = database.writer();
    writer
        .execute(
            "INSERT INTO _lantern_plugin (id, name, version, digest, contract, loaded_at, description)
             VALUES (2, 'things', '0.2.0', 'sha256:' || ?1, '0.1.0', 0, ?2)",
            ["b".repeat(64), description.to_string()],
        )
        .unwrap();
    writer
        .execute_batch(
            "INSERT INTO _lantern_installation (plugin, changed_at) VALUES ('things', 0);
             INSERT INTO _lantern_dead_letter (id, origin, sequence, plugin_version, class, reason, subject, published_ns,
                 headers, payload, attempts, state, first_at, last_at)
             VALUES (7, 1, 7, 2, 'malformed', 'because', 'a.b', 0, '[]', x'7b7d', 1, 'open', 1000000, 1000000);
             INSERT INTO _lantern_rebuild (id, plugin, plugin_version, state, options, started_at, ended_at)
             VALUES (7, 'things', 2, 'done', '{}', 0, 1);
             INSERT INTO things (id, _origin, _sequence, _row) VALUES (1, 2, 3, 0);",
        )
        .unwrap();
}
