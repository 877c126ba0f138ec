//! Tests a PostgreSQL server that is killed while messages arrive, and one that is killed while none arrive.

use super::*;
use crate::killed_postgres::PostgresServer;

/// Kills of the server.
const ROUNDS: usize = 5;
/// Messages that are published in each round before and after the kill.
const MESSAGES: usize = 400;

fn count(server: &PostgresServer) -> Vec<String> {
    postgres::query(
        &server.address(),
        "SELECT count(*), count(DISTINCT event_record_id) FROM obs_events",
    )
}

fn database(host: &Host) -> (bool, String) {
    host.check("database").unwrap()
}

#[test]
fn messages_become_rows_once_although_the_server_of_the_database_is_killed() {
    let Some(mut server) = PostgresServer::start() else {
        eprintln!("skipped: PostgreSQL is not installed");
        return;
    };
    let site = Site::new(&["obs-events"]);
    let mut command = site.command();
    command.env("LANTERN__STORE__URL", server.address());
    let host = Host::spawn(command);
    running(&host, "obs");
    let mut published = 0;
    for round in 0..ROUNDS {
        site.publish(&obs(published + 1, MESSAGES));
        // Some of them are rows when the server is killed, and later ones arrive while it is down.
        if round % 2 == 0 {
            let has_rows =
                |host: &Host| host.projection("obs")["checkpoint"].as_u64() > Some(published as u64);
            host.wait("the first rows", LIMIT, has_rows);
        }
        server.kill();
        site.publish(&obs(published + MESSAGES + 1, MESSAGES));
        published += 2 * MESSAGES;
        host.wait("the loss is reported", LIMIT, |host| {
            let (ok, detail) = database(host);
            !ok && detail.contains("PostgreSQL at postgres://postgres@127.0.0.1")
        });
        assert_eq!(host.get("/readyz").unwrap().0, 503);
        server.run();
        host.wait("all messages are handled", LIMIT, |host| {
            host.projection("obs")["checkpoint"] == published && database(host).0
        });
        assert_eq!(
            count(&server),
            [format!("{published}|{published}")],
            "round {round}"
        );
    }

    // The last commits are not on the disk when the server is killed, and no message arrives afterwards.
    site.publish(&obs(published + 1, 50));
    published += 50;
    host.wait("the last rows", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == published
    });
    server.kill();
    server.run();
    host.wait("the lost rows are back", LIMIT, |host| {
        database(host).0 && count(&server) == [format!("{published}|{published}")]
    });
    host.wait("ready", LIMIT, |host| {
        host.get("/readyz").is_ok_and(|(status, _)| status == 200)
    });
    host.terminate();
    let report = postgres::check(&server.address());
    assert_eq!(report.problems, [], "{report:?}");
}
