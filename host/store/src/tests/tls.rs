//! TLS to a PostgreSQL server, with certificates of the test. A proxy in front of the server encrypts: it answers the request for
//! TLS as the server does, and passes everything else on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::location::Server;
use crate::reader::{ReadError, ReadLimits, Reader};
use crate::testing::new_server_database;

/// The first message of a client that wants TLS.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A password that no error may contain.
const PASSWORD: &str = "geheim-0815";

struct Proxy {
    port: u16,
    /// Connections that were encrypted.
    encrypted: Arc<AtomicUsize>,
}

/// An authority and the configuration of a server called `localhost` with its certificate.
fn authority() -> (String, ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (authority.pem(), config)
}

async fn serve(
    mut client: TcpStream,
    server: String,
    config: Arc<ServerConfig>,
    encrypted: Arc<AtomicUsize>,
) {
    let mut first = [0; 8];
    if client.read_exact(&mut first).await.is_err() {
        return;
    }
    // A client that does not want TLS is refused.
    if first != TLS_REQUEST || client.write_all(b"S").await.is_err() {
        return;
    }
    let Ok(mut client) = TlsAcceptor::from(config).accept(client).await else {
        return;
    };
    encrypted.fetch_add(1, Ordering::Relaxed);
    let mut server = TcpStream::connect(server).await.unwrap();
    drop(copy_bidirectional(&mut client, &mut server).await);
}

async fn proxy(server: String, config: ServerConfig) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let encrypted = Arc::new(AtomicUsize::new(0));
    let (config, count) = (Arc::new(config), Arc::clone(&encrypted));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(
                client,
                server.clone(),
                Arc::clone(&config),
                Arc::clone(&count),
            ));
        }
    });
    Proxy { port, encrypted }
}

async fn open(address: &str) -> Result<Reader, ReadError> {
    let server: Server = address.parse().unwrap();
    Reader::open_at(&crate::Location::Postgres(server), ReadLimits::default()).await
}

/// The error with all causes, which must not contain the password.
async fn refused(address: &str) -> String {
    let error = open(address).await.expect_err(address);
    let server: Server = address.parse().unwrap();
    let text = format!("{} {error:?} {server} {server:?}", error.with_cause());
    assert!(!text.contains(PASSWORD), "{text}");
    error.with_cause()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_decides_how_a_server_proves_its_identity() {
    let Some(database) = new_server_database().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // Creates the host's tables.
    let scene = Scene::at(dir.path(), orders(), Some(database)).await;
    let shown = scene.store.location().to_string();
    let (_, rest) = shown.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let (pem, config) = authority();
    let proxy = proxy(server.to_owned(), config).await;
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, pem).unwrap();
    let others = dir.path().join("others.pem");
    std::fs::write(&others, authority().0).unwrap();
    let port = proxy.port;
    let at = |host: &str, parameters: &str| {
        format!("postgres://postgres:{PASSWORD}@{host}:{port}/{name}?{parameters}")
    };
    let (roots, others) = (roots.display(), others.display());
    for accepted in [
        at("localhost", "sslmode=require"),
        at("localhost", "sslmode=prefer&connect_timeout=9"),
        at("localhost", &format!("sslmode=verify-full&sslrootcert={roots}")),
        at("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={roots}")),
        at("127.0.0.1", &format!("sslmode=require&sslrootcert={roots}")),
    ] {
        let before = proxy.encrypted.load(Ordering::Relaxed);
        let reader = open(&accepted)
            .await
            .unwrap_or_else(|error| panic!("{accepted}: {}", error.with_cause()));
        assert_eq!(reader.tables().await.unwrap().len(), 2);
        assert!(proxy.encrypted.load(Ordering::Relaxed) > before, "{accepted}");
    }
    refuse_others(&at, &roots.to_string(), &others.to_string()).await;
    let plain = format!("postgres://postgres:{PASSWORD}@{server}/{name}?sslmode=require");
    let error = refused(&plain).await;
    assert!(error.contains("server does not support TLS"), "{error}");
}

/// Addresses that do not fit the certificate of the proxy. `at` makes an address from a host and parameters.
async fn refuse_others(at: &impl Fn(&str, &str) -> String, roots: &str, others: &str) {
    for (address, expected) in [
        // The proxy ends connections without TLS.
        (at("localhost", "sslmode=disable"), ""),
        (at("localhost", "sslmode=verify-full"), "cannot open database"),
        (
            at("localhost", &format!("sslmode=verify-full&sslrootcert={others}")),
            "invalid peer certificate",
        ),
        (
            at("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={others}")),
            "invalid peer certificate",
        ),
        (
            at("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={roots}")),
            "certificate not valid for name",
        ),
        (
            at("localhost", "sslmode=verify-full&sslrootcert=/none.pem"),
            "sslrootcert /none.pem",
        ),
    ] {
        let error = refused(&address).await;
        assert!(error.contains(expected), "{address}: {error}");
    }
    let error = at("localhost", "sslmode=full")
        .parse::<Server>()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("verify-full") && !error.contains(PASSWORD),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_cancelled_through_tls() {
    let Some(database) = new_server_database().await else {
        eprintln!("skipped: LANTERN_TEST_POSTGRES does not name a PostgreSQL server");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::at(dir.path(), orders(), Some(database)).await;
    let shown = scene.store.location().to_string();
    let (_, rest) = shown.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let proxy = proxy(server.to_owned(), authority().1).await;
    let address = format!(
        "postgres://postgres@localhost:{}/{name}?sslmode=require",
        proxy.port
    );
    let reader = open(&address).await.unwrap();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    drop(tokio::time::timeout(Duration::from_millis(200), reader.sql(endless, 1)).await);
    let running = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'lantern-sql' AND state = 'active'";
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while scene.query(running) != "0" {
        assert!(std::time::Instant::now() < deadline, "a statement continues");
        tokio::task::yield_now().await;
    }
}
