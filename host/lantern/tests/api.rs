//! Tests the API through its router over a real SQLite file: responses, rejected requests, and pagination that neither
//! loses nor repeats a row during writes.

#![allow(clippy::too_many_lines, reason = "a scenario is one sequence of steps")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by them"
)]

#[path = "api/access.rs"]
mod access;
#[path = "api/answers.rs"]
mod answers;
#[path = "api/counts.rs"]
mod counts;
#[path = "api/database.rs"]
mod database;
#[path = "api/dead_letters.rs"]
mod dead_letters;
#[path = "support/described.rs"]
mod described;
#[path = "support/evolving.rs"]
mod evolving;
#[path = "api/following.rs"]
mod following;
#[path = "api/guard.rs"]
mod guard;
#[path = "api/openapi.rs"]
mod openapi;
#[path = "api/page.rs"]
mod page;
#[path = "api/plugins.rs"]
mod plugins;
#[path = "api/recording.rs"]
mod recording;
#[path = "api/records.rs"]
mod records;
#[path = "api/rows.rs"]
mod rows;
#[path = "api/scene.rs"]
mod scene;
#[path = "api/sql.rs"]
mod sql;
#[path = "api/tables.rs"]
mod tables;
#[path = "api/uploads.rs"]
mod uploads;
#[path = "api/visits.rs"]
mod visits;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use database::{Database, add, check, running};
use futures_util::StreamExt as _;
use lantern_http::{State, router};
use lantern_model::batch::Timestamp;
use lantern_model::status;
use serde_json::Value;
use tower::ServiceExt as _;

async fn send(api: &Router, request: Request<Body>) -> (Response<()>, String) {
    let response = api.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    // An event stream has no end while the client listens.
    let is_events = parts
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream");
    let bytes = match is_events {
        true => body.into_data_stream().next().await.unwrap().unwrap(),
        false => to_bytes(body, 64 << 20).await.unwrap(),
    };
    (
        Response::from_parts(parts, ()),
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

async fn get(api: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path)
        .header("host", "localhost:7070")
        .body(Body::empty())
        .unwrap();
    let (response, body) = send(api, request).await;
    (response.status(), body)
}

async fn get_json(api: &Router, path: &str) -> Value {
    let (status, body) = get(api, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Asserts that the response is a problem with this status and that its detail contains these words.
async fn refused(api: &Router, path: &str, status: StatusCode, words: &str) {
    let request = Request::get(path)
        .header("host", "127.0.0.1")
        .body(Body::empty())
        .unwrap();
    let (response, body) = send(api, request).await;
    assert_eq!(response.status(), status, "{path}: {body}");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{path}"
    );
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status.as_u16(), "{path}");
    assert!(
        problem["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:lantern:problem:"),
        "{body}"
    );
    assert!(
        problem["title"].is_string() && problem["instance"].is_string(),
        "{body}"
    );
    assert!(
        problem["detail"].as_str().unwrap().contains(words),
        "{path}: {body}"
    );
}
