//! Tests plugins through the API: install, swap, pause, remove, and all rejected requests.

use std::collections::BTreeSet;
use std::path::Path;

use super::evolving;
use super::scene::{Scene, bearer};
use super::*;

pub const WASM: &str = "application/wasm";
const JSON: &str = "application/json";

impl Scene {
    pub async fn install(&self, letter: u8, query: &str) -> Value {
        let path = format!("/api/v1/plugins{query}");
        let (status, taken) = self.act("POST", &path, WASM, evolving::version(letter)).await;
        assert_eq!(status, 201, "{taken}");
        taken
    }

    /// Sends a call of the operator; asserts that the API rejects it with this status and these words.
    async fn refuses(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &str,
        expected: (u16, &str),
    ) -> Value {
        let (status, answer) = self.act(method, path, content_type, body.to_owned()).await;
        assert_eq!(status, expected.0, "{method} {path} {body}: {answer}");
        assert!(
            answer.to_string().contains(expected.1),
            "{method} {path}: {answer}"
        );
        answer
    }
}

/// Returns all files and folders below a folder.
pub fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.display().to_string());
        if path.is_dir() {
            found.extend(files(&path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_managed_through_the_api() {
    let scene = Scene::near().await;
    let first = scene.install(b'a', "?activate=true").await;
    assert_eq!(
        (
            &first["plugin"],
            &first["version"],
            &first["state"],
            &first["from"]
        ),
        (
            &"evolving".into(),
            &"1.0.0".into(),
            &"active".into(),
            &Value::Null
        )
    );
    assert_eq!(first["retry"]["retried"], 0);

    let second = scene.install(b'b', "").await;
    assert_eq!(
        (&second["state"], &second["effect"]),
        (&"installed".into(), &"additive".into())
    );
    assert_eq!(second["from"], first["digest"]);
    assert!(second.get("retry").is_none());
    let places: Vec<&str> = second["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| difference["place"].as_str().unwrap())
        .collect();
    assert!(places.contains(&"table evolved, column extra"), "{places:?}");

    // A digest prefix, a version number or no value (the newest) selects a version.
    let digest = second["digest"].as_str().unwrap().to_owned();
    let activate = "/api/v1/plugins/evolving/activate";
    let (status, now) = scene
        .act(
            "POST",
            activate,
            JSON,
            format!(r#"{{"digest": "{}"}}"#, &digest[7..15]),
        )
        .await;
    assert_eq!((status, &now["state"]), (200, &"active".into()), "{now}");
    let rollback = "/api/v1/plugins/evolving/rollback";
    // The older version does not declare the new column: the host rejects its activation, but allows a rollback to it.
    let (status, older) = scene.act("POST", activate, JSON, r#"{"digest": "1.0.0"}"#).await;
    assert_eq!(status, 422, "{older}");
    let (_, back) = scene.act("POST", rollback, "", Body::empty()).await;
    assert_eq!(
        (&back["digest"], &back["effect"]),
        (&first["digest"], &"none".into()),
        "{back}"
    );
    let (_, newest) = scene.act("POST", activate, "", Body::empty()).await;
    assert_eq!(newest["digest"], second["digest"]);
    let (_, rolled) = scene.act("POST", rollback, "", Body::empty()).await;
    assert_eq!(rolled["digest"], first["digest"], "{rolled}");

    let diff = get_json(
        &scene.api,
        &format!("/api/v1/plugins/evolving/differences?from=1.0.0&to={digest}"),
    )
    .await;
    assert_eq!(
        (&diff["from"], &diff["to"]),
        (&first["digest"], &second["digest"])
    );
    assert_eq!(diff["effect"], "additive");

    // The description of the plugin, before it runs and while it runs.
    let path = format!("/api/v1/plugins/evolving/description?version={digest}");
    let said = get_json(&scene.api, &path).await;
    assert_eq!(
        (&said["digest"], &said["version"]),
        (&second["digest"], &second["version"])
    );
    assert_eq!(said["description"]["tables"][0]["name"], "evolved");
    assert_eq!(said["imports"], serde_json::json!([]));
    assert_eq!(said["limits"]["memory"], "64 MiB");
    let (status, _) = get(&scene.api, "/api/v1/plugins/evolving/description").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = get(&scene.api, "/api/v1/plugins/evolving/description?version=9.9.9").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let (_, paused) = scene
        .act(
            "POST",
            "/api/v1/plugins/evolving/pause",
            JSON,
            r#"{"reason": "because\u001b[31m"}"#,
        )
        .await;
    assert_eq!(paused["state"], "paused");
    let reason = paused["paused"].as_str().unwrap();
    assert!(
        reason.starts_with("because") && reason.ends_with("(by acts)"),
        "{reason}"
    );
    assert!(!reason.contains('\u{1b}'));
    let detail = get_json(&scene.api, "/api/v1/plugins/evolving").await;
    assert_eq!(detail["versions"].as_array().unwrap().len(), 2);
    assert_eq!(detail["versions"][0]["state"], "paused");
    assert_eq!(detail["versions"][0]["came_from"], "sent by acts");
    let (_, resumed) = scene
        .act("POST", "/api/v1/plugins/evolving/resume", "", Body::empty())
        .await;
    assert_eq!(
        (&resumed["state"], &resumed["paused"]),
        (&"active".into(), &Value::Null)
    );

    let (status, removed) = scene
        .act(
            "DELETE",
            "/api/v1/plugins/evolving?tables=drop",
            "",
            Body::empty(),
        )
        .await;
    assert_eq!(
        (status, &removed["dropped"]),
        (200, &serde_json::json!(["evolved"]))
    );
    refused(
        &scene.api,
        "/api/v1/plugins/evolving",
        StatusCode::NOT_FOUND,
        "no plugin named evolving",
    )
    .await;
    let actions: Vec<String> = scene.audit(10);
    for (entry, beginning) in actions.iter().rev().zip([
        "acts plugin.install done version 1.0.0 is active",
        "acts plugin.install done version 1.1.0, sent by acts",
        "acts plugin.activate done version 1.1.0 is active",
        "acts plugin.activate refused",
        "acts plugin.rollback done version 1.0.0 is active",
        "acts plugin.activate done version 1.1.0 is active",
        "acts plugin.rollback done version 1.0.0 is active",
        "acts plugin.pause done because",
        "acts plugin.resume done",
        "acts plugin.remove done tables=drop: dropped tables evolved",
    ]) {
        assert!(entry.starts_with(beginning), "{entry} instead of {beginning}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_listed_with_its_ledger_ranges() {
    let scene = Scene::near().await;
    scene
        .database
        .writer()
        .execute_batch(
            "INSERT INTO _lantern_ledger VALUES (1, 1, 1, 1, 6, 6, 4, 1, 1, 0, 4, 4, 0, 1000000, 4, 0);
             INSERT INTO _lantern_ledger VALUES (2, 1, 2, 7, 9, 3, 3, 0, 0, 0, 3, 3, 0, 0, 3, 0);
             INSERT INTO _lantern_ledger VALUES (3, 1, 1, 10, 10, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0);",
        )
        .unwrap();
    let detail = get_json(&scene.api, "/api/v1/plugins/things").await;
    let ranges = |version: usize| -> Vec<(i64, i64, i64)> {
        let ranges = detail["versions"][version]["ranges"].as_array().unwrap().iter();
        let number = |range: &Value, field: &str| range[field].as_i64().unwrap();
        ranges
            .map(|range| {
                (
                    number(range, "first_sequence"),
                    number(range, "last_sequence"),
                    number(range, "messages"),
                )
            })
            .collect()
    };
    assert_eq!(ranges(0), [(10, 10, 1), (1, 6, 6)]);
    assert_eq!(ranges(1), [(7, 9, 3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_operations_are_rejected_with_a_reason_and_change_nothing() {
    let scene = Scene::near().await;
    scene.install(b'a', "?activate=true").await;
    let misfit = scene.install(b'c', "").await;
    assert_eq!(misfit["effect"], "needs-rebuild");
    let before = scene.contents();
    let plugins = "/api/v1/plugins";
    scene
        .refuses("POST", plugins, WASM, "", (400, "the body is empty"))
        .await;
    scene
        .refuses(
            "POST",
            plugins,
            WASM,
            "junk",
            (422, "The component cannot be loaded"),
        )
        .await;
    scene
        .refuses("POST", plugins, WASM, "\0asm\u{1}\0\0\0", (422, "hint"))
        .await;
    scene
        .refuses(
            "POST",
            "/api/v1/plugins?activate=yes",
            WASM,
            "x",
            (400, "true, false"),
        )
        .await;
    scene
        .refuses(
            "POST",
            "/api/v1/plugins?canari=3",
            WASM,
            "x",
            (400, "unknown parameter"),
        )
        .await;
    let refusal = scene
        .refuses(
            "POST",
            "/api/v1/plugins/evolving/activate",
            JSON,
            r#"{"digest": "2.0.0"}"#,
            (422, "column note is text and would become integer"),
        )
        .await;
    assert!(refusal["hint"].as_str().unwrap().contains("rebuild"), "{refusal}");
    assert_eq!(refusal["problems"].as_array().unwrap().len(), 1);
    for (digest, status) in [("9.9.9", 404), ("sha256:00000000", 404), ("../x", 404), ("", 404)] {
        let body = format!(r#"{{"digest": "{digest}"}}"#);
        scene
            .refuses(
                "POST",
                "/api/v1/plugins/evolving/activate",
                JSON,
                &body,
                (status, "no version"),
            )
            .await;
    }
    for body in [r#"{"digets": "x"}"#, r#"{"digest": 7}"#, "[]", "{"] {
        scene
            .refuses(
                "POST",
                "/api/v1/plugins/evolving/activate",
                JSON,
                body,
                (400, "invalid body"),
            )
            .await;
    }
    scene
        .refuses(
            "POST",
            "/api/v1/plugins/evolving/rollback",
            "",
            "",
            (409, "no previous version"),
        )
        .await;
    for act in ["activate", "rollback", "pause", "resume"] {
        let path = format!("/api/v1/plugins/absent/{act}");
        scene
            .refuses("POST", &path, "", "", (404, "no plugin named absent"))
            .await;
    }
    scene
        .refuses(
            "DELETE",
            "/api/v1/plugins/absent?tables=drop",
            "",
            "",
            (404, "lantern plugin list"),
        )
        .await;
    for query in ["", "?tables=", "?tables=all", "?tables=drop&tables=keep"] {
        let path = format!("/api/v1/plugins/evolving{query}");
        scene.refuses("DELETE", &path, "", "", (400, "tables")).await;
    }
    for query in ["", "?from=1.0.0", "?to=1.0.0", "?from=1.0.0&to=1.0.0&x=1"] {
        let path = format!("/api/v1/plugins/evolving/differences{query}");
        refused(&scene.api, &path, StatusCode::BAD_REQUEST, "").await;
    }
    assert_eq!(scene.contents(), before);
    let detail = get_json(&scene.api, "/api/v1/plugins/evolving").await;
    assert_eq!(detail["versions"][0]["state"], "active");
}

#[tokio::test]
async fn settings_are_changed_atomically() {
    let scene = Scene::near().await;
    let path = "/api/v1/plugins/things/settings";
    let (status, set) = scene
        .act(
            "PUT",
            path,
            JSON,
            r#"{"changes": {"limits.memory": "128MiB", "limits.rows_per_message": 9, "wasi": true}}"#,
        )
        .await;
    assert_eq!(status, 200, "{set}");
    let expected = serde_json::json!({"limits": {"memory": "128 MiB", "rows_per_message": 9}, "wasi": true});
    assert_eq!(set, expected);
    let bad = r#"{"changes": {"limits.memory": "1B", "limits.memroy": "1", "rollback.excess_percent": 101}}"#;
    let refusal = scene.refuses("PUT", path, JSON, bad, (422, "out of range")).await;
    assert_eq!(refusal["problems"].as_array().unwrap().len(), 3, "{refusal}");
    for body in [
        "",
        "{}",
        r#"{"changes": {"limits": {"memory": "128MiB"}}}"#,
        r#"{"changes": [], "more": 1}"#,
    ] {
        scene.refuses("PUT", path, JSON, body, (400, "")).await;
    }
    assert_eq!(get_json(&scene.api, path).await, expected);
    let back = r#"{"changes": {"limits.memory": null, "limits.rows_per_message": "", "wasi": false}}"#;
    let (_, set) = scene.act("PUT", path, JSON, back).await;
    assert_eq!(set, serde_json::json!({}));
    assert_eq!(
        scene.audit(1),
        ["acts plugin.set done limits.memory= limits.rows_per_message= wasi=false"]
    );
}

#[tokio::test]
async fn names_in_urls_never_become_paths() {
    let scene = Scene::near().await;
    let root = scene.database.dir.path().parent().unwrap().to_owned();
    let token = bearer(&scene.operator);
    let contents = scene.contents();
    let inside = files(scene.database.dir.path());
    // Other tests create files in the same folder.
    let hostile_files = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(&root).unwrap();
        let names = entries.map(|entry| entry.unwrap().path().display().to_string());
        names.filter(|path| path.contains("hostile")).collect()
    };
    let before = hostile_files();
    let long = "a".repeat(300);
    for name in [
        "../hostile",
        "..%2fhostile",
        "%2e%2e%2fhostile",
        "%2e%2e",
        "..%5chostile",
        "%2ftmp%2fhostile",
        "hostile%00",
        "%ff%fe",
        "CON",
        "h%d0%bestile",
        "%ef%bd%88ostile",
        "hostile%20",
        "Hostile",
        "_hostile",
        &long,
    ] {
        for (method, rest, body) in [
            ("GET", "", ""),
            ("GET", "/settings", ""),
            ("GET", "/differences?from=1.0.0&to=1.0.0", ""),
            ("PUT", "/settings", r#"{"changes": {"wasi": "true"}}"#),
            ("POST", "/activate", "{}"),
            ("POST", "/rollback", "{}"),
            ("POST", "/pause", "{}"),
            ("POST", "/resume", "{}"),
            ("DELETE", "?tables=drop", ""),
        ] {
            let path = format!("/api/v1/plugins/{name}{rest}");
            let mut headers = vec![("authorization", token.as_str())];
            if !body.is_empty() {
                headers.push(("content-type", JSON));
            }
            let (status, answer) = scene.call(method, &path, &headers, Body::from(body)).await;
            assert!(matches!(status, 400 | 404), "{method} {path}: {status} {answer}");
        }
    }
    assert_eq!(scene.contents(), contents);
    let fresh: Vec<String> = files(scene.database.dir.path())
        .difference(&inside)
        .cloned()
        .collect();
    assert!(fresh.is_empty(), "{fresh:?}");
    assert_eq!(hostile_files(), before);
    assert!(!Path::new("/tmp/hostile").exists());
}

#[tokio::test]
async fn readiness_reports_a_paused_plugin_without_failing() {
    let database = Database::new();
    let state = database.state().await;
    let _paused = add(
        &state.projections,
        status::Status {
            state: status::ProjectionState::Paused,
            paused: Some("maintenance (by acts)".into()),
            ..running()
        },
    );
    let (status, body) = get(&router(state), "/readyz").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("paused: maintenance (by acts)"), "{body}");
}
