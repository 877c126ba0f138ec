//! Tests a log that cannot be written: a full disk, and a pipe without a reader. The host keeps working and counts the
//! lost lines.

use std::process::Stdio;
use std::time::Instant;

use super::*;

fn lines_lost(host: &Host) -> u64 {
    let (_, metrics) = host.get("/metrics").unwrap();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("lantern_log_lines_lost_total "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Runs a host with this standard error until it loses log lines, and stops it gracefully.
fn works_unheard(stderr: Stdio) {
    let site = Site::new(&["obs-events"]);
    let mut command = site.command();
    command.env("LANTERN__LOG__FILTER", "trace").stderr(stderr);
    let host = Host::spawn(super::faults::patient(command));
    running(&host, "obs");
    let began = Instant::now();
    let mut published = 0;
    while lines_lost(&host) == 0 {
        assert!(began.elapsed() < LIMIT, "no line is lost");
        site.publish(&obs(published, 200));
        published += 200;
    }
    site.wait_for_rows(&host, "obs_events", published);
    assert_eq!(host.get("/readyz").unwrap().0, 200);
    let status = host.terminate();
    assert!(status.success(), "{status:?}");
    sound(site.dir());
}

#[test]
fn a_full_disk_under_the_log_loses_only_log_lines() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    works_unheard(full.into());
}

#[test]
fn a_stopped_reader_of_the_log_does_not_delay_the_host() {
    let (reader, writer) = std::io::pipe().unwrap();
    works_unheard(writer.into());
    drop(reader);
}
