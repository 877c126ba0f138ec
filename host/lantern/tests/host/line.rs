//! Tests a broker behind a bad network line (B4).

use super::*;
use crate::host::check;
use crate::line_to_broker::Line;

/// Processor time of a process in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_slow_connection_is_used_and_a_silent_one_is_detected() {
    let server = NatsServer::start();
    let line = Line::to(server.port());
    let plugins = plugin_folder(&["obs-events"]);
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), &line.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(0, 2_000));
    wait_for_rows(&host, dir.path(), "obs_events", 2_000);

    line.be_silent(true);
    publish(&server, &obs(2_000, 500));
    host.wait("that nothing comes", LIMIT, |host| {
        !host.check("broker").unwrap().0
    });
    assert_eq!(host.get("/readyz").unwrap().0, 503);
    let before = ticks(host.pid());
    std::thread::sleep(Duration::from_secs(5));
    let used = ticks(host.pid()) - before;
    assert!(used < 250, "{used} ticks of 500 while it waits");

    line.be_silent(false);
    wait_for_rows(&host, dir.path(), "obs_events", 2_500);
    host.wait("ready", LIMIT, |host| {
        host.get("/readyz").is_ok_and(|(status, _)| status == 200)
    });
    drop(host);
    assert_eq!(check(dir.path()).0, 0);
    let twice = "SELECT count(*) FROM (SELECT 1 FROM obs_events GROUP BY _sequence HAVING count(*) > 1)";
    assert_eq!(query(dir.path(), twice), ["0"]);
}
