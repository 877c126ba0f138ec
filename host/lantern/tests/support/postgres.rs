//! Databases of a PostgreSQL server for tests, and queries of them as text.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The address of a new database of the server of `LANTERN_TEST_POSTGRES`, if `LANTERN_TEST_SCENES` is `postgres`; otherwise
/// none, for a file.
pub async fn new_database() -> Option<String> {
    if std::env::var("LANTERN_TEST_SCENES").as_deref() != Ok("postgres") {
        return None;
    }
    let address = std::env::var("LANTERN_TEST_POSTGRES").expect("the address of a server");
    let name = format!("l_{}", uuid::Uuid::new_v4().simple());
    let client = connect(&address).await;
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    let (server, _) = address.rsplit_once('/').expect("an address with a database");
    Some(format!("{server}/{name}"))
}

async fn connect(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns the rows of a query, with cells separated by `|`, as for a file. Without the numbers of the rows, which are a column
/// here.
pub fn query(address: &str, sql: &str) -> Vec<String> {
    on_thread(|| async {
        let client = connect(address).await;
        client.batch_execute("SET search_path = lantern").await.unwrap();
        let messages = client.simple_query(sql).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| {
            let columns = row.columns().iter().enumerate();
            let shown = columns.filter(|(_, column)| column.name() != "_rowid_");
            let cells: Vec<String> = shown.map(|(number, _)| cell(row.get(number))).collect();
            cells.join("|")
        })
        .collect()
    })
}

fn cell(text: Option<&str>) -> String {
    match text {
        None => "null".to_owned(),
        // Bytes are shown in hexadecimal digits.
        Some(text) => match text.strip_prefix("\\x") {
            Some(digits) => format!("{} bytes", digits.len() / 2),
            None => text.to_owned(),
        },
    }
}

/// Runs a future outside the runtime of the test, whose thread waits for it.
fn on_thread<T: Send, F: Future<Output = T>>(run: impl FnOnce() -> F + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(run())
        });
        thread.join().unwrap()
    })
}

/// Checks a database.
pub fn check(address: &str) -> lantern_store::check::Report {
    let server = address.parse().unwrap();
    on_thread(|| async move {
        let check = tokio::task::spawn_blocking(move || lantern_store::check::check_server(&server, None));
        check.await.unwrap().unwrap()
    })
}
