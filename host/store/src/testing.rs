//! Shared by the tests of this crate: a small manifest, and a store in its own directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::Digest as _;

use bytes::Bytes;

use rusqlite::types::ValueRef;

use super::commit::{OriginId, VersionId};
use super::location::{Location, Server};
use super::sql::Connection;
use super::{Adopted, Adoption, Attached, Commit, Entry, Mark, NewEpoch, Store, StoreConfig, check};
use lantern_model::batch::{Delivery, Outcome, Row, Timestamp, Value};
use lantern_model::schema::{
    ColumnType, DeclaredRole, Manifest, Merge, Origin, RawColumn, RawGuard, RawManifest, RawOnConflict,
    RawSource, RawTable, RawWrite, Write,
};

/// The plugin `orders`, which reads the stream ORDERS, with these tables and writes.
pub(super) fn plugin_of(tables: Vec<RawTable>, writes: Vec<RawWrite>) -> Manifest {
    Manifest::check(RawManifest {
        name: "orders".into(),
        version: "1.0.0".into(),
        doc: String::new(),
        sources: vec![RawSource {
            name: "orders".into(),
            origin: Origin::JetStream {
                stream: "ORDERS".into(),
                subjects: vec![],
            },
            wants_headers: false,
        }],
        tables,
        writes,
    })
    .expect("a good manifest")
}

/// A generator of numbers: the same in each run with the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number from 0 to `limit` - 1.
    pub(super) fn below(&mut self, limit: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % limit
    }

    /// Whether a case that occurs once in `count` occurs.
    pub(super) fn one_in(&mut self, count: i64) -> bool {
        self.below(count) == 0
    }
}

/// A table `orders` (id, total, at) with two writes: 0 fails on a collision, 1 adds totals if newer. And a table
/// `notes` (n, at) without a key, written by write 2.
pub(super) fn orders() -> Manifest {
    let column = |name: &str, column_type, nullable, role| RawColumn {
        name: name.into(),
        column_type,
        nullable,
        role,
        doc: String::new(),
        hints: Vec::new(),
    };
    plugin_of(
        vec![
            RawTable {
                name: "orders".into(),
                columns: vec![
                    column("id", ColumnType::Text, false, DeclaredRole::Entity),
                    column("total", ColumnType::Integer, true, DeclaredRole::None),
                    column("at", ColumnType::Timestamp, true, DeclaredRole::Time),
                ],
                primary_key: vec!["id".into()],
                ..RawTable::default()
            },
            RawTable {
                name: "notes".into(),
                columns: vec![
                    column("n", ColumnType::Integer, true, DeclaredRole::None),
                    column("at", ColumnType::Timestamp, true, DeclaredRole::Time),
                ],
                retention_days: Some(1),
                ..RawTable::default()
            },
        ],
        writes(),
    )
}

fn writes() -> Vec<RawWrite> {
    let columns = ["id", "total", "at"].map(str::to_owned).to_vec();
    vec![
        RawWrite {
            table: "orders".into(),
            columns: columns.clone(),
            on_conflict: RawOnConflict::Fail,
        },
        RawWrite {
            table: "orders".into(),
            columns,
            on_conflict: RawOnConflict::Update {
                key: vec!["id".into()],
                merges: vec![("total".into(), Merge::Add)],
                guard: RawGuard::Newer("at".into()),
            },
        },
        RawWrite {
            table: "notes".into(),
            columns: vec!["n".into(), "at".into()],
            on_conflict: RawOnConflict::Fail,
        },
    ]
}

pub(super) fn write_of(manifest: &Manifest, number: usize) -> Write {
    manifest.writes[number].clone()
}

pub(super) fn order(id: &str, total: i64) -> Outcome {
    let values = vec![Value::Text(id.into()), Value::Integer(total), Value::Null];
    Outcome::Rows(vec![Row { write: 0, values }])
}

pub(super) fn note(n: i64) -> Outcome {
    Outcome::Rows(vec![Row {
        write: 2,
        values: vec![Value::Integer(n), Value::Timestamp(Timestamp(n))],
    }])
}

pub(super) fn entry(sequence: u64, outcome: Outcome) -> Entry {
    let payload = Bytes::from(format!("payload {sequence}"));
    let delivery = Delivery {
        subject: "orders.new".into(),
        sequence,
        published_ns: i64::try_from(sequence).unwrap() * 1_000_000,
        headers: vec![("Nats-Msg-Id".into(), sequence.to_string())],
        payload,
    };
    Entry { delivery, outcome }
}

/// A batch without messages, of a version that no database knows.
pub(super) fn empty_commit() -> Commit {
    Commit {
        origin: OriginId(1),
        stamp: OriginId(1),
        plugin: Adopted {
            version: VersionId(1),
            manifest: Arc::new(orders()),
            statements: Arc::default(),
            tables: Arc::default(),
        },
        after: 0,
        through: Mark::BEGINNING,
        entries: Vec::new(),
        gaps: Vec::new(),
        durable: false,
    }
}

/// An open store with the `orders` plugin, at the start of epoch 1.
pub(super) struct Scene {
    pub(super) store: Store,
    pub(super) plugin: Adopted,
    pub(super) attached: Attached,
}

impl Scene {
    pub(super) async fn open(dir: &std::path::Path) -> Self {
        Self::of(dir, orders()).await
    }

    /// With another declaration of the plugin.
    pub(super) async fn of(dir: &std::path::Path, manifest: Manifest) -> Self {
        Self::at(dir, manifest, server_of(dir).await).await
    }

    /// With the tables at a server.
    pub(super) async fn at(dir: &std::path::Path, manifest: Manifest, server: Option<Server>) -> Self {
        let config = StoreConfig {
            // Tests commit one batch after the other.
            commit_delay: std::time::Duration::ZERO,
            server,
            ..StoreConfig::new(dir)
        };
        let store = Store::open(config).await.expect("open");
        let plugin = store.plugins().adopt(adoption(manifest)).await.expect("adopt");
        let attached = match store.sources().attach("orders", "orders").await.expect("attach") {
            Some(attached) => attached,
            None => store.sources().begin_epoch(first_epoch()).await.expect("begin"),
        };
        Self {
            store,
            plugin,
            attached,
        }
    }

    /// A batch that continues `after` with these outcomes, one sequence each.
    pub(super) fn batch(&self, after: u64, outcomes: Vec<Outcome>) -> Commit {
        let entries: Vec<Entry> = (after + 1..)
            .zip(outcomes)
            .map(|(sequence, outcome)| entry(sequence, outcome))
            .collect();
        let sequence = after + entries.len() as u64;
        Commit {
            origin: self.attached.origin,
            stamp: self.attached.origin,
            plugin: self.plugin.clone(),
            after,
            through: Mark {
                sequence,
                published_ns: 7,
                payload_sha256: Some([7; 32]),
            },
            entries,
            gaps: Vec::new(),
            durable: false,
        }
    }

    /// Removes all expired rows of a table of the manifest.
    pub(super) async fn expire_all(&self, table: usize, now: Timestamp) {
        let table = &self.plugin.manifest.tables[table];
        while self.store.maintenance().expire(table.clone(), now).await.unwrap() > 0 {}
    }

    pub(super) fn query(&self, sql: &str) -> String {
        outside_runtime(|| text_of(&self.connect(), sql))
    }

    /// Changes the database as an operator could.
    pub(super) async fn change(&self, sql: &str) {
        let sql = sql.to_owned();
        let changed = self.store.call(move |connection| connection.execute_batch(&sql));
        changed.await.unwrap();
    }

    /// The report of a check of the database.
    pub(super) fn checked(&self) -> check::Report {
        checked(&self.store)
    }

    /// Another connection to the database.
    fn connect(&self) -> Connection {
        match self.store.location() {
            Location::Sqlite(path) => Connection::open(path).unwrap(),
            Location::Postgres(server) => Connection::Postgres(server.open_reader(None).unwrap()),
        }
    }
}

/// Runs a function that uses a session of a server: on a thread outside the runtime of the test.
fn outside_runtime<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let _entered = runtime.enter();
            run()
        });
        thread.join().unwrap()
    })
}

/// The report of a check of the database of a store.
pub(super) fn checked(store: &Store) -> check::Report {
    match store.location() {
        Location::Sqlite(path) => check::check(path).expect("checked"),
        Location::Postgres(server) => outside_runtime(|| check::check_server(server, None)).expect("checked"),
    }
}

/// The settings of a store in this directory; its tables are where [`server_of`] decides.
pub(super) async fn config_of(dir: &std::path::Path) -> StoreConfig {
    StoreConfig {
        server: server_of(dir).await,
        ..StoreConfig::new(dir)
    }
}

/// The rows of a query as text.
fn text_of(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        let cells: Vec<String> = (0..width)
            .map(|column| match row.get_ref(column).unwrap() {
                ValueRef::Null => "null".to_owned(),
                ValueRef::Integer(integer) => integer.to_string(),
                ValueRef::Real(real) => real.to_string(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                ValueRef::Blob(blob) => format!("{} bytes", blob.len()),
            })
            .collect();
        Ok(cells.join(" "))
    });
    rows.unwrap().map(Result::unwrap).collect::<Vec<_>>().join("; ")
}

/// A new database of the PostgreSQL server that `LANTERN_TEST_POSTGRES` names; none without it.
pub(super) async fn new_server_database() -> Option<Server> {
    let address = std::env::var("LANTERN_TEST_POSTGRES").ok()?;
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    Some(database_of_server(&address, &name).await)
}

/// Where the tables of a scene in a directory are: in a database of the server of `LANTERN_TEST_POSTGRES` that belongs to the
/// directory, if `LANTERN_TEST_SCENES` is `postgres`; otherwise none, for a file.
pub(super) async fn server_of(dir: &std::path::Path) -> Option<Server> {
    if std::env::var("LANTERN_TEST_SCENES").as_deref() != Ok("postgres") {
        return None;
    }
    let address = std::env::var("LANTERN_TEST_POSTGRES").expect("the address of a server");
    let digest = sha2::Sha256::digest(dir.as_os_str().as_encoded_bytes());
    let digest: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    Some(database_of_server(&address, &format!("s_{digest}")).await)
}

/// A database of a server, which is created if it does not exist.
async fn database_of_server(address: &str, name: &str) -> Server {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls)
        .await
        .expect("the server of LANTERN_TEST_POSTGRES");
    tokio::spawn(connection);
    let exists = "SELECT 1 FROM pg_database WHERE datname = $1";
    if client
        .query_opt(exists, &[&name])
        .await
        .expect("databases")
        .is_none()
    {
        let create = format!("CREATE DATABASE {name}");
        client.batch_execute(&create).await.expect("a new database");
    }
    let (server, _) = address.rsplit_once('/').expect("an address with a database");
    format!("{server}/{name}").parse().expect("an address")
}

/// Ends the writer's sessions with a database again and again until it is stopped. Returns how many it has ended.
pub(super) async fn end_sessions(database: String, stop: Arc<AtomicBool>) -> u64 {
    let address = std::env::var("LANTERN_TEST_POSTGRES").expect("the address");
    let connected = tokio_postgres::connect(&address, tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("the server of LANTERN_TEST_POSTGRES");
    tokio::spawn(connection);
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = $1 AND application_name = 'lantern-writer'";
    let mut ended = 0;
    // Different intervals, so that sessions end at different places of a batch; a session needs some milliseconds to open.
    for interval in (10..).step_by(13) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        ended += client.execute(sql, &[&database]).await.expect("ended sessions");
        tokio::time::sleep(std::time::Duration::from_millis(interval % 120 + 10)).await;
    }
    ended
}

pub(super) fn adoption(manifest: Manifest) -> Adoption {
    // Another declaration is another version.
    let digest = format!("sha256:{:?}", sha2::Sha256::digest(format!("{manifest:?}")));
    Adoption {
        digest,
        manifest: Arc::new(manifest),
        contract: "0.1.0".into(),
        at: Timestamp(1),
    }
}

pub(super) fn first_epoch() -> NewEpoch {
    NewEpoch {
        plugin: "orders".into(),
        source: "orders".into(),
        stream: Some("ORDERS".into()),
        stream_created_ns: Some(1),
        after: 0,
        anchors: Vec::new(),
        reason: "the first".into(),
        at: Timestamp(1),
    }
}
