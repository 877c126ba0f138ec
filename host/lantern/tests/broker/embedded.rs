//! Tests the embedded broker, which the host runs itself.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lantern_broker::{
    Broker, BrokerConfig, BrokerLocation, ConnectError, EmbeddedConfig, EmbeddedError, Link,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::nats::{binary, eventually};
use super::{LIMIT, STREAM, connected, read, request, wait_for_link};

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        binary: Some(binary()),
        dir: dir.to_owned(),
        port: None,
    }
}

async fn start(config: EmbeddedConfig) -> Result<Broker, ConnectError> {
    let broker = Broker::connect(BrokerConfig::new(BrokerLocation::Embedded(config))).await?;
    connected(&broker).await;
    Ok(broker)
}

fn pid(dir: &Path) -> Pid {
    Pid::from_raw(std::fs::read_to_string(dir.join("pid")).unwrap().parse().unwrap()).unwrap()
}

/// Returns the address with user and password, which other programs of the same user can read.
fn full_url(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("nats.url")).unwrap();
    text.trim().to_owned()
}

async fn client(url: &str) -> Result<async_nats::Client, async_nats::ConnectError> {
    lantern_outbox::Broker::at(url).unwrap().connect().await
}

async fn fill(broker: &Broker, dir: &Path) {
    broker.ensure_stream(STREAM, &["ev.>".into()]).await.unwrap();
    let client = client(&full_url(dir)).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for number in 0..10 {
        crate::nats::publish(&jetstream, "ev.a", number.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_keeps_its_port_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    let url = broker.embedded_url().unwrap().to_owned();
    let full = full_url(dir.path());
    assert!(full.starts_with("nats://lantern:") && full.ends_with(url.strip_prefix("nats://").unwrap()));
    fill(&broker, dir.path()).await;
    let running = pid(dir.path());
    broker.stop().await;
    assert!(test_kill_process(running).is_err(), "it has ended");
    for gone in ["nats.url", "pid"] {
        assert!(!dir.path().join(gone).exists(), "{gone}");
    }
    let broker = start(config(dir.path())).await.unwrap();
    assert_eq!(
        broker.embedded_url().unwrap(),
        url,
        "other programs find it where it was"
    );
    assert_eq!(full_url(dir.path()), full, "with the same password");
    let mut subscription = broker.open(request(0)).await.unwrap();
    assert_eq!(read(&mut subscription, 10).await.len(), 10);
    drop(subscription);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_requires_a_password_that_only_its_owner_can_read() {
    let dir = tempfile::tempdir().unwrap();
    // The state that a version without passwords leaves.
    std::fs::write(dir.path().join("nats.conf"), "listen: \"127.0.0.1:0\"\n").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    fill(&broker, dir.path()).await;
    let bare = broker.embedded_url().unwrap().to_owned();
    let wrong = bare.replace("nats://", "nats://lantern:wrong@");
    for url in [&bare, &wrong] {
        let error = client(url).await.err().unwrap();
        assert_eq!(
            error.kind(),
            async_nats::ConnectErrorKind::AuthorizationViolation,
            "{error}"
        );
    }
    let mode = |name: &str| {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    for file in ["nats.conf", "nats.url", "password", "pid", "port"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_eq!(mode(""), 0o700);
    let password = std::fs::read_to_string(dir.path().join("password")).unwrap();
    assert!(
        !bare.contains(password.trim()),
        "the address that is shown has the password"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_exits_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    fill(&broker, dir.path()).await;
    for generation in 2..5 {
        kill_process(pid(dir.path()), Signal::KILL).unwrap();
        wait_for_link(
            &broker,
            |link| matches!(link, Link::Connected(server) if server.generation == generation),
        )
        .await;
    }
    eventually("its address is published again", LIMIT, async || {
        dir.path().join("nats.url").exists()
    })
    .await;
    assert_eq!(broker.stream_facts(STREAM).await.unwrap().unwrap().messages, 10);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_host_in_the_same_directory_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    let error = start(config(dir.path())).await.err().unwrap();
    assert!(
        matches!(error, ConnectError::Embedded(EmbeddedError::InUse { .. })),
        "{error}"
    );
    assert!(
        broker.link().borrow().is_connected(),
        "the first one is not affected"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_killed_host_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    let url = broker.embedded_url().unwrap().to_owned();
    let full = full_url(dir.path());
    broker.stop().await;
    // The state after the host is killed on a system that does not signal the child.
    let conf = std::fs::canonicalize(dir.path()).unwrap().join("nats.conf");
    let mut orphan = std::process::Command::new(binary())
        .arg("-c")
        .arg(conf)
        .spawn()
        .unwrap();
    std::fs::write(dir.path().join("pid"), orphan.id().to_string()).unwrap();
    let reaper = std::thread::spawn(move || orphan.wait().unwrap());
    eventually("the orphan listens", LIMIT, async || client(&full).await.is_ok()).await;
    let broker = start(config(dir.path())).await.unwrap();
    assert_eq!(broker.embedded_url().unwrap(), url);
    reaper.join().unwrap();
    broker.stop().await;
    // A pid that now belongs to another process: the host leaves that process alone.
    let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(dir.path().join("pid"), bystander.id().to_string()).unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    assert!(bystander.try_wait().unwrap().is_none());
    broker.stop().await;
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_when_configured_and_avoided_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = start(EmbeddedConfig {
        port: Some(port),
        ..config(dir.path())
    })
    .await
    .err()
    .unwrap();
    assert!(
        matches!(error, ConnectError::Embedded(EmbeddedError::PortInUse { .. })),
        "{error}"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("broker.embedded.port"))
    );
    std::fs::write(dir.path().join("port"), port.to_string()).unwrap();
    let broker = start(config(dir.path())).await.unwrap();
    assert!(!broker.embedded_url().unwrap().ends_with(&port.to_string()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_is_reported_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("jetstream"), "not a folder").unwrap();
    let started = tokio::time::timeout(Duration::from_secs(25), start(config(dir.path())))
        .await
        .unwrap();
    let error = started.err().unwrap();
    assert!(
        matches!(error, ConnectError::Embedded(EmbeddedError::NotReady { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("storage directory"), "{error}");
}

const HOST_DIR: &str = "LANTERN_TEST_EMBEDDED_HOST";

/// The process that the next test starts and kills. It never returns.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the next test starts it as a process"]
async fn a_host_to_be_killed() {
    let dir = std::env::var_os(HOST_DIR).unwrap();
    let _broker = start(config(Path::new(&dir))).await.unwrap();
    std::fs::write(Path::new(&dir).join("ready"), "").unwrap();
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_server_dies_with_a_killed_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["embedded::a_host_to_be_killed", "--exact", "--ignored"])
        .env(HOST_DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the host runs", LIMIT, async || dir.path().join("ready").exists()).await;
    let server = pid(dir.path());
    // Idle runtime threads exit after ten seconds. The server must survive the thread that started it.
    tokio::time::sleep(Duration::from_secs(11)).await;
    test_kill_process(server).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    eventually("the server is gone", LIMIT, async || {
        test_kill_process(server).is_err()
    })
    .await;
    let broker = start(config(dir.path())).await.unwrap();
    broker.stop().await;
}
