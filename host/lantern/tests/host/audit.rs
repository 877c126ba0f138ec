//! Tests the audit of a killed host: every change that took effect has an entry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::*;

/// Sends changes one after another until one gets no response. `request` returns the path and body of the n-th change.
fn changing(
    host: &Host,
    token: &str,
    method: &'static str,
    answered: &Arc<AtomicUsize>,
    request: impl Fn(usize) -> (String, String) + Send + 'static,
) -> JoinHandle<usize> {
    let (url, token, answered) = (host.url(), token.to_owned(), Arc::clone(answered));
    std::thread::spawn(move || {
        for number in 1.. {
            let (path, body) = request(number);
            match send(&url, &token, method, &path, &body) {
                Some(status) if (200..300).contains(&status) => {}
                Some(status) => panic!("{method} {path} {body}: {status}"),
                None => return number,
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
        unreachable!()
    })
}

/// Sends a change and returns the status; `None` if the host no longer responds.
fn send(url: &str, token: &str, method: &str, path: &str, body: &str) -> Option<u16> {
    use std::io::{Read as _, Write as _};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn the_audit_of_a_killed_host_contains_every_change() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let dir = folder.path().join("data");
    let mut interrupted = 0;
    for round in 0..6 {
        let host = Host::start(&dir, &server.url(), &plugins);
        let token = std::fs::read_to_string(dir.join("operator.token")).unwrap();
        let token = token.trim();
        let answered = Arc::new(AtomicUsize::new(0));
        let mut threads: Vec<JoinHandle<usize>> = (0..3)
            .map(|thread| {
                changing(&host, token, "POST", &answered, move |number| {
                    let body = json!({"name": format!("t{round}-{thread}-{number}"), "role": "operator"});
                    ("/api/v1/tokens".to_owned(), body.to_string())
                })
            })
            .collect();
        threads.push(changing(&host, token, "PUT", &answered, move |number| {
            let body = json!({"changes": {"dead_letters.max": (1_000 * round + number).to_string()}});
            (format!("/api/v1/plugins/p{round}/settings"), body.to_string())
        }));
        // Kill at a different point in every round.
        let least = 12 + 7 * round;
        host.wait("changes", LIMIT, |_| answered.load(Ordering::SeqCst) >= least);
        host.kill();
        for thread in threads {
            thread.join().unwrap();
        }
        let settings = query(
            &dir,
            &format!(
                "SELECT settings ->> '$.dead_letters.max' FROM _lantern_installation WHERE plugin = 'p{round}'"
            ),
        );
        let set: usize = settings.first().map_or(0, |value| value.parse().unwrap());
        // The end of the entry is part of the change, so the newest one names the setting that is in effect.
        let ended = query(
            &dir,
            &format!(
                "SELECT detail FROM _lantern_audit WHERE outcome = 'done' AND action = 'plugin.set' AND plugin = 'p{round}'
                     ORDER BY id DESC LIMIT 1"
            ),
        );
        let expected = settings.first().map(|value| format!("dead_letters.max={value}"));
        assert_eq!(ended.first(), expected.as_ref(), "round {round}");
        let recorded = query(
            &dir,
            &format!(
                "SELECT count(*) FROM _lantern_audit WHERE outcome = 'started' AND action = 'plugin.set' AND plugin = 'p{round}'"
            ),
        );
        let recorded: usize = recorded[0].parse().unwrap();
        assert!(
            set == 0 || set - 1_000 * round <= recorded,
            "setting {set} took effect, and {recorded} changes are recorded"
        );

        // The next start closes the audit entries of interrupted operations.
        let host = Host::start(&dir, &server.url(), &plugins);
        let open = "SELECT count(*) FROM _lantern_audit s WHERE outcome = 'started' AND NOT EXISTS
                        (SELECT 1 FROM _lantern_audit e WHERE e.ends = s.id)";
        assert_eq!(query(&dir, open), ["0"]);
        host.terminate();
        let ended = query(
            &dir,
            "SELECT count(*) FROM _lantern_audit WHERE outcome = 'interrupted'",
        );
        interrupted = ended[0].parse().unwrap();
        sound(&dir);
    }
    let tokens = query(&dir, "SELECT name FROM _lantern_token ORDER BY name");
    let created = query(
        &dir,
        "SELECT substr(detail, 7, instr(detail, ',') - 7) FROM _lantern_audit WHERE action = 'token.create'
             AND outcome = 'done'",
    );
    assert!(tokens.len() > 20, "{tokens:?}");
    assert_eq!(
        tokens.into_iter().collect::<BTreeSet<_>>(),
        created.into_iter().collect::<BTreeSet<_>>(),
        "tokens and their entries differ"
    );
    println!("{interrupted} changes were interrupted");
}
