//! The demo with scripts in place of its two programs.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
};

use super::*;

/// An API that answers every request with one projection of `rows` rows, until the test ends.
fn api(rows: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| answer(stream.unwrap(), rows))
    });
    address
}

fn answer(mut stream: TcpStream, rows: u64) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut request).unwrap() > 2 {}
    let body = format!(r#"[{{"plugin": "obs-events", "source": "events", "rows": {rows}, "lag": 0}}]"#);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    process::write_script(&path, text);
    path
}

/// A folder, a host whose API reports `rows`, and a feeder that runs `feeder`. Both append to a file when they exit.
fn start(rows: u64, feeder: &str) -> (tempfile::TempDir, Host, Feeder) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let text = format!(
        "trap 'echo host >>{0}/ended; exit 0' TERM\necho http://{1}\nwhile :; do sleep 0.02; done",
        path.display(),
        api(rows)
    );
    let start = host::Start {
        program: script(path, "lantern", &text),
        plugins: path.join("plugins"),
        nats_server: path.join("nats-server"),
        data_dir: path.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
    };
    let host = Host::start(&start, path).unwrap();
    let text = format!("{feeder}; echo feeder >>{}/ended", path.display());
    let feeder = Feeder::start(&script(path, "feeder", &text), path).unwrap();
    (folder, host, feeder)
}

fn ended(folder: &tempfile::TempDir) -> String {
    fs::read_to_string(folder.path().join("ended")).unwrap()
}

#[test]
fn a_demo_with_a_limit_ends_in_the_order_of_the_data() {
    let (folder, mut host, mut feeder) = start(5, "cat");
    let (_stop, stopped) = mpsc::sync_channel(1);
    let end = watch(&mut host, &mut feeder, &stopped, Some(Duration::from_millis(1)));
    assert!(matches!(end, End::Requested), "{end:?}");
    stop_both(host, feeder, &end, true).unwrap();
    assert_eq!(ended(&folder), "feeder\nhost\n");
}

#[test]
fn ctrl_c_ends_the_demo() {
    let (folder, mut host, mut feeder) = start(5, "cat");
    let (stop, stopped) = mpsc::sync_channel(1);
    stop.send(()).unwrap();
    let end = watch(&mut host, &mut feeder, &stopped, None);
    stop_both(host, feeder, &end, false).unwrap();
    assert_eq!(ended(&folder), "feeder\nhost\n");
}

#[test]
fn an_unexpected_exit_of_the_feeder_fails_the_demo() {
    let (folder, mut host, mut feeder) = start(5, "true");
    let (_stop, stopped) = mpsc::sync_channel(1);
    let end = watch(&mut host, &mut feeder, &stopped, None);
    let error = stop_both(host, feeder, &end, false).unwrap_err().to_string();
    assert_eq!(error, "the feeder exited unexpectedly");
    assert_eq!(ended(&folder), "feeder\nhost\n");
}

#[test]
fn a_run_without_rows_fails() {
    let (_folder, mut host, mut feeder) = start(0, "cat");
    let (_stop, stopped) = mpsc::sync_channel(1);
    let end = watch(&mut host, &mut feeder, &stopped, Some(Duration::from_millis(1)));
    let error = stop_both(host, feeder, &end, true).unwrap_err().to_string();
    assert_eq!(error, "no event became a row");
}

#[test]
fn a_port_in_use_is_replaced_by_a_free_one() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap();
    assert_eq!(free_address(address).unwrap().port(), 0);
    drop(occupied);
    assert_eq!(free_address(address).unwrap(), address);
}
