//! Bodies that lie, never end or come too slowly, and clients that go away, against routes made for it.

use lantern_broker::Broker;
use lantern_lifecycle::{Lifecycle, Parts};
use lantern_plugin::{Compiler, Loader};
use lantern_trust::signature::Policy;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract;
use axum::http::request::Builder;
use futures_util::stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::access::{Config, Role};
use crate::doc::{Doc, Tag};
use crate::routes::Routes;
use crate::{State, guard};
use lantern_model::status::Registry;
use lantern_store::reader::{AuditFilter, ReadError, Reader};
use lantern_store::{Health, Store};
use lantern_telemetry::Metrics;

/// Smallest that is refused is one more.
const UPLOAD_BYTES_MAX: u64 = 100_000;

struct Scene {
    api: Router,
    token: String,
    reader: Reader,
    received: Arc<AtomicUsize>,
    go_on: CancellationToken,
    health: watch::Receiver<Health>,
    dir: tempfile::TempDir,
}

/// Changes of the test: one that counts the bytes of its body, one that waits, one that reads the audit, and one that panics.
fn routes(received: &Arc<AtomicUsize>, go_on: &CancellationToken) -> Routes {
    let (count, wait) = (Arc::clone(received), go_on.clone());
    let doc = || Doc::new(Tag::Plugins, "test", "A change of the test");
    Routes::default()
        .change(
            Change::post("/plugins/{plugin}", "plugin.install").with_component(UPLOAD_BYTES_MAX),
            async move |note: AuditNote, body: Bytes| {
                count.fetch_add(body.len(), Ordering::SeqCst);
                note.digest("sha256:ab");
                note.detail(format!("{} bytes", body.len()));
            },
            doc(),
        )
        .change(
            Change::put("/slow", "test.slow").within(Duration::from_millis(50)),
            async move || wait.cancelled().await,
            doc(),
        )
        .change(
            Change::post("/looks/{plugin}", "test.look"),
            async |extract::State(state): extract::State<State>| {
                let page = state.reader.audit(&AuditFilter::default(), 1, None).await?;
                let entry = page
                    .items
                    .first()
                    .map(|entry| (entry.outcome.clone(), entry.plugin.clone()));
                assert_eq!(entry, Some(("started".to_owned(), Some("things".to_owned()))));
                Ok::<_, Problem>(())
            },
            doc(),
        )
        .change(
            Change::post("/panics", "test.panic"),
            async |_: extract::State<State>| -> &'static str { panic!("as the test wants") },
            doc(),
        )
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(
            Store::open(lantern_store::StoreConfig::new(dir.path()))
                .await
                .unwrap(),
        );
        let reader = Reader::open(store.path().unwrap()).await.unwrap();
        let (path, health) = (store.path().unwrap().to_owned(), store.health());
        let access = Access::open(Arc::clone(&store), &reader, Config::loopback())
            .await
            .unwrap();
        let name = lantern_model::schema::TokenName::parse("acts").unwrap();
        let token = access
            .create(name, Role::Operator, &Actor::Local, None, None)
            .await
            .unwrap();
        let projections = Registry::default();
        let state = State {
            metrics: Metrics::new(projections.clone(), Some(&path)),
            live: crate::Live::start(
                reader.clone(),
                store.commits(),
                projections.clone(),
                CancellationToken::new(),
            ),
            projections,
            reader: reader.clone(),
            health: Arc::new(Vec::new),
            access: access.clone(),
            lifecycle: idle_lifecycle(dir.path(), store).await,
            identity: lantern_trust::identity::Identity::new([7; 32], "http://127.0.0.1:7070"),
            started: lantern_model::batch::Timestamp::now(),
        };
        let (received, go_on) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let api = routes(&received, &go_on)
            .into_router(&access)
            .with_state(state)
            .layer(axum::middleware::from_fn(guard::finish));
        Self {
            api,
            token: token.as_str().to_owned(),
            reader,
            received,
            go_on,
            health,
            dir,
        }
    }

    fn request(&self, method: &str, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn send(&self, request: Builder, body: Body) -> u16 {
        let request = request.body(body).unwrap();
        self.api.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    /// Waits until the audit has these entries and no others.
    async fn wait_for_audit(&self, entries: &[&str]) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            // A database that has just returned can fail to answer.
            let audit = self.audit().await;
            if audit.as_ref().is_ok_and(|audit| audit == entries) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{audit:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn audit(&self) -> Result<Vec<String>, ReadError> {
        let page = self.reader.audit(&AuditFilter::default(), 100, None).await?;
        let entries = page.items.into_iter().map(|entry| {
            let plugin = entry.plugin.unwrap_or_default();
            format!("{} {} {plugin}: {}", entry.action, entry.outcome, entry.detail)
        });
        Ok(entries.collect())
    }
}

#[tokio::test]
async fn the_end_of_a_change_is_recorded_when_the_database_is_available_again() {
    let mut scene = Scene::new().await;
    let slow = scene.request("PUT", "/slow");
    assert_eq!(scene.send(slow, Body::empty()).await, 503);
    scene.wait_for_audit(&["test.slow started : PUT /slow"]).await;
    let [file, away] = ["lantern.db", "away"].map(|name| scene.dir.path().join(name));
    std::fs::rename(&file, &away).unwrap();
    std::fs::create_dir(&file).unwrap();
    scene.go_on.cancel();
    let failed = scene
        .health
        .wait_for(|health| matches!(health, Health::Unavailable(_)));
    let failed = tokio::time::timeout(Duration::from_secs(10), failed).await;
    drop(failed.expect("the end of the change was written").unwrap());
    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&away, &file).unwrap();
    scene.wait_for_audit(&["test.slow done : "]).await;
}

/// A body of so many bytes in pieces, of which nobody knows the length before.
fn pieces(bytes: u64) -> Body {
    let pieces = (0..bytes / 1_000).map(|_| Ok::<_, std::io::Error>(vec![0; 1_000]));
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn an_upload_is_accepted_up_to_its_limit() {
    let scene = Scene::new().await;
    let upload = || {
        let request = scene.request("POST", "/plugins/things");
        request.header("content-type", "application/wasm")
    };
    let chunked = || upload().header("transfer-encoding", "chunked");
    let most = UPLOAD_BYTES_MAX;
    assert_eq!(scene.send(chunked(), pieces(most)).await, 200);
    assert_eq!(scene.received.load(Ordering::SeqCst) as u64, most);
    assert_eq!(scene.send(chunked(), pieces(most + 1_000)).await, 413);
    assert_eq!(scene.send(chunked(), pieces(1 << 40)).await, 413);
    // It says that it is small, or does not say.
    let small = upload().header("content-length", "10");
    assert_eq!(scene.send(small, pieces(1 << 40)).await, 413);
    assert_eq!(scene.send(upload(), pieces(1 << 40)).await, 413);
    let large = upload().header("content-length", "1073741824");
    assert_eq!(scene.send(large, Body::empty()).await, 413);

    let packed = chunked().header("content-encoding", "gzip");
    assert_eq!(scene.send(packed, pieces(1_000)).await, 415);
    let typed = |content_type| {
        let request = scene.request("POST", "/plugins/things");
        request
            .header("content-type", content_type)
            .header("transfer-encoding", "chunked")
    };
    for content_type in [
        "application/json",
        "multipart/form-data",
        "application/octet-stream",
    ] {
        assert_eq!(scene.send(typed(content_type), pieces(1_000)).await, 415);
    }
    let cut_short = Body::from_stream(stream::iter([
        Ok(vec![0; 10]),
        Err(std::io::Error::other("the client hung up")),
    ]));
    assert_eq!(scene.send(chunked(), cut_short).await, 400);
    assert_eq!(scene.received.load(Ordering::SeqCst) as u64, most);

    let audit = scene.audit().await.unwrap();
    assert_eq!(audit.last().unwrap(), "plugin.install done things: 100000 bytes");
    assert!(
        audit[..audit.len() - 1]
            .iter()
            .all(|entry| entry.starts_with("plugin.install refused things: ")),
        "{audit:#?}"
    );
}

#[tokio::test]
async fn a_missing_body_ends_with_a_timeout() {
    let endless = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let problem = read(endless, 10, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn a_change_continues_after_its_client_disconnects() {
    let scene = Scene::new().await;
    let slow = scene.request("PUT", "/slow");
    assert_eq!(scene.send(slow, Body::empty()).await, 503);
    let gone = scene.request("PUT", "/slow").body(Body::empty()).unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(10), scene.api.clone().oneshot(gone));
    assert!(answer.await.is_err(), "the client did not hang up");
    scene.wait_for_audit(&["test.slow started : PUT /slow"; 2]).await;
    scene.go_on.cancel();
    scene.wait_for_audit(&["test.slow done : "; 2]).await;
}

#[tokio::test]
async fn an_entry_is_committed_before_the_handler_runs() {
    let scene = Scene::new().await;
    let request = scene.request("POST", "/looks/things");
    assert_eq!(scene.send(request, Body::empty()).await, 200);
    assert_eq!(scene.audit().await.unwrap(), ["test.look done things: "]);
}

#[tokio::test]
async fn a_change_that_panics_is_in_the_audit() {
    let scene = Scene::new().await;
    let request = scene.request("POST", "/panics");
    assert_eq!(scene.send(request, Body::empty()).await, 500);
    assert_eq!(
        scene.audit().await.unwrap(),
        ["test.panic failed : see the log of the host"]
    );
}

/// A lifecycle without plugins that keeps its components below `dir`. Its broker never answers.
async fn idle_lifecycle(dir: &std::path::Path, store: Arc<Store>) -> Lifecycle {
    let plugin_dir = dir.join("plugins");
    std::fs::create_dir_all(&plugin_dir).unwrap();
    let registry = Registry::default();
    let metrics = Metrics::new(registry.clone(), store.path());
    let parts = Parts {
        leases: None,
        config: lantern_lifecycle::LifecycleConfig {
            components_dir: dir.join("components"),
            plugin_dir,
            signatures: Policy::default(),
            projections: lantern_projection::ProjectionConfig {
                messages_max: 1_000,
                bytes_max: 1 << 20,
                create_streams: false,
                consumer_prefix: "lantern".to_owned(),
                confirm_after: std::time::Duration::from_secs(10),
                dead_letters_max: 10_000,
                owner: "test".to_owned(),
            },
        },
        broker: Broker::connect(lantern_broker::BrokerConfig::remote("nats://127.0.0.1:1"))
            .await
            .unwrap(),
        store,
        loader: Arc::new(
            Loader::new(lantern_plugin::EngineConfig::new(Compiler::InProcess), [7; 32]).unwrap(),
        ),
        registry,
        metrics,
    };
    Lifecycle::start(parts, tokio_util::sync::CancellationToken::new())
        .await
        .unwrap()
}
