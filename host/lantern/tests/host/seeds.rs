//! Tests the behaviour of Lantern's predecessors, as visible in the tables.

use super::*;

fn started(result_id: &str, pc_id: &str) -> (String, String) {
    let payload = json!({
        "result_id": result_id, "request_id": "req-1", "exec_id": "exec-1", "pc_id": pc_id,
        "started_at": "2026-05-20T12:00:00Z", "manifest_id": "inv-hw", "version": "1.0.0",
    });
    (format!("events.started.{pc_id}.exec-1"), payload.to_string())
}

fn finished(result_id: &str, exit_code: i64) -> (String, String) {
    let payload = json!({
        "result_id": result_id, "request_id": "req-1", "pc_id": "pc-1", "exit_code": exit_code,
        "stdout": "out", "stderr": "", "started_at": "2026-05-20T12:00:00Z",
        "finished_at": "2026-05-20T12:00:05Z", "manifest_id": "inv-hw",
    });
    ("results.pc-1".to_owned(), payload.to_string())
}

#[test]
fn executions_do_not_depend_on_order_and_repetition() {
    let site = Site::new(&["executions"]);
    let host = site.running("events");
    running(&host, "results");
    let settle = |what: &str, sql: &str, expected: &str| {
        host.wait(what, LIMIT, |_| query(site.dir(), sql).join(";") == expected);
    };

    publish(
        &site.server,
        &[
            started("r1", "pc-1"),
            started("r1", "pc-1"),
            started("r2", "pc-2"),
        ],
    );
    settle(
        "in-flight rows, one for each machine",
        "SELECT result_id, pc_id, exit_code, finished_at, version, job_id FROM execution_results ORDER BY 1",
        "r1|pc-1|null|null|1.0.0|inv-hw;r2|pc-2|null|null|1.0.0|inv-hw",
    );
    site.publish(&[finished("r1", 0), finished("r3", 7)]);
    settle(
        "completed rows; the start's version and exec id stay",
        "SELECT result_id, exit_code, stdout, version, exec_id FROM execution_results WHERE finished_at NOT NULL
         ORDER BY 1",
        "r1|0|out|1.0.0|exec-1;r3|7|out|null|null",
    );
    // A late start sets its columns. A repeated result with another verdict changes nothing.
    publish(
        &site.server,
        &[started("r3", "pc-1"), finished("r1", 99), finished("r3", 99)],
    );
    host.wait("all read", LIMIT, |host| {
        host.projection("events")["checkpoint"] == 4 && host.projection("results")["checkpoint"] == 4
    });
    settle(
        "the late start sets its columns; nothing else changes",
        "SELECT result_id, exit_code, finished_at, version, exec_id FROM execution_results
         WHERE finished_at NOT NULL ORDER BY 1",
        "r1|0|1779278405000000|1.0.0|exec-1;r3|7|1779278405000000|1.0.0|exec-1",
    );
    site.end(host);
}

#[test]
fn repeated_events_with_an_id_are_one_row() {
    let site = Site::new(&["obs-events"]);
    let host = site.running("obs");
    let without_id = |pc: &str| {
        let event = json!({"pc_id": pc, "at": "2026-05-28T10:00:00+02:00", "kind": "agent_started",
            "source": "agent:internal", "payload": null});
        (format!("obs.{pc}"), event.to_string())
    };
    let mut messages = obs(1, 2);
    messages.extend(obs(1, 2));
    messages.extend([without_id("pc-1"), without_id("pc-1")]);
    let other_pc = obs(1, 1).remove(0).1.replace("pc-1", "pc-2");
    messages.push(("obs.pc-2".to_owned(), other_pc));
    site.publish(&messages);
    host.wait("all read", LIMIT, |host| {
        host.projection("obs")["checkpoint"] == 7
    });
    assert_eq!(
        query(
            site.dir(),
            "SELECT pc_id, event_record_id, at, payload FROM obs_events ORDER BY 1, 2"
        ),
        [
            "pc-1|null|1779955200000000|null",
            "pc-1|null|1779955200000000|null",
            "pc-1|1|1779964860000000|{\"n\":1}",
            "pc-1|2|1779964860000000|{\"n\":2}",
            "pc-2|1|1779964860000000|{\"n\":1}",
        ]
    );
    site.end(host);
}

#[test]
fn audit_entries_are_distinguished_by_their_sequence() {
    let site = Site::new(&["audit-log"]);
    let host = site.running("audit");
    let entry = json!({"actor": "tester", "action": "exec", "target": "job-1", "payload": {"k": "v"},
        "occurred_at": "2026-06-01T00:00:00Z"});
    publish(
        &site.server,
        &[
            ("audit.x".to_owned(), entry.to_string()),
            ("audit.x".to_owned(), entry.to_string()),
        ],
    );
    site.wait_for_rows(&host, "audit_log", 2);
    assert_eq!(
        query(
            site.dir(),
            "SELECT actor, action, target, payload, stream_seq FROM audit_log ORDER BY stream_seq"
        ),
        [
            "tester|exec|job-1|{\"k\":\"v\"}|1",
            "tester|exec|job-1|{\"k\":\"v\"}|2"
        ]
    );
    site.end(host);
}

#[test]
fn the_newest_heartbeat_is_kept_in_any_order() {
    let site = Site::new(&["heartbeats", "host-perf"]);
    let host = site.running("heartbeats");
    running(&host, "perf");
    let beat = |at: &str, version: &str| {
        json!({"pc_id": "pc-1", "at": at, "agent_version": version, "hostname": "h"}).to_string()
    };
    run(async {
        let client = site.server.client().await;
        for (at, version) in [
            ("2026-05-01T00:00:01Z", "1"),
            ("2026-05-01T00:00:03Z", "3"),
            ("2026-05-01T00:00:02Z", "2"),
        ] {
            client
                .publish("heartbeat.pc-1", beat(at, version).into())
                .await
                .unwrap();
        }
        let now = chrono::Utc::now().to_rfc3339();
        let sample = json!({"pc_id": "pc-1", "at": now, "cpu_pct": 12, "mem_used_bytes": 5});
        client
            .publish("host_perf.pc-1", sample.to_string().into())
            .await
            .unwrap();
        client
            .publish("host_perf.pc-1", sample.to_string().into())
            .await
            .unwrap();
        client.flush().await.unwrap();
    });
    host.wait("all read", LIMIT, |host| {
        host.projection("heartbeats")["checkpoint"] == 3 && host.projection("perf")["checkpoint"] == 2
    });
    assert_eq!(
        query(
            site.dir(),
            "SELECT pc_id, agent_version, hostname, os_family FROM agents"
        ),
        ["pc-1|3|h|null"]
    );
    assert_eq!(
        query(
            site.dir(),
            "SELECT pc_id, cpu_pct, mem_used_bytes, cpu_count FROM host_perf"
        ),
        ["pc-1|12|5|null"]
    );
    site.end(host);
}
