//! Measures how many bytes the host writes to the disk for each stored byte.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags};

use crate::events::runtime;
use crate::host::{Host, plugin_folder};
use crate::nats::NatsServer;
use crate::process::{publish_evenly, watch};
use crate::report;

/// Publishes at a constant rate, and compares the bytes that the process has written with the growth of the database.
pub fn measure(rate: u64, seconds: u64) -> anyhow::Result<()> {
    let server = NatsServer::start();
    let folder = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir_in(std::env::current_dir()?.join("target"))?;
    let host = Host::start(dir.path(), &server.url(), folder.path());
    host.wait("running", Duration::from_secs(30), |host| {
        host.projection("obs")["state"] == "running"
    });
    let path = dir.path().join("lantern.db");
    let (written, stored) = (written(host.pid())?, stored(&path)?);
    let seen = std::thread::spawn({
        let (path, count) = (path.clone(), rate * seconds);
        move || watch(&path, 0, count)
    });
    runtime()?.block_on(publish_evenly(&server.url(), rate, rate * seconds))?;
    seen.join()
        .map_err(|_| anyhow::anyhow!("the watching thread panicked"))??;
    let written = self::written(host.pid())? - written;
    let stored = self::stored(&path)? - stored;
    println!(
        "write amplification at {rate} messages/s for {seconds} s: {:.1} bytes written for each stored byte ({:.1} MB/s \
         for {:.0} bytes per row)",
        written as f64 / stored as f64,
        written as f64 / seconds as f64 / 1e6,
        stored as f64 / (rate * seconds) as f64
    );
    report::line(
        &format!(
            "bytes written to the disk for each stored byte at {rate} messages/s (`-- write-amplification`)"
        ),
        format!("{:.1}", written as f64 / stored as f64),
    );
    Ok(())
}

/// The bytes that a process has caused to be written to the disk.
fn written(pid: u32) -> anyhow::Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .context("no such line in /proc")?;
    Ok(line.parse()?)
}

/// The size of the database, including what is only in the log.
fn stored(path: &Path) -> anyhow::Result<u64> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let number = |pragma: &str| -> anyhow::Result<u64> {
        let number: i64 = connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?;
        Ok(u64::try_from(number)?)
    };
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}
