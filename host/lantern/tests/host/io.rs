//! Tests a failing device: one write, truncation or synchronization of the database's files fails per round
//! (`support/fail_io.c`, loaded before libc). The host never acknowledges a message that it has not stored.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;

/// Number of rounds; one call fails in each while messages arrive. A small batch takes about twenty calls.
const ROUNDS: usize = 30;
/// The calls that fail while the host starts with an empty directory: some of the first forty.
const AT_START: [i64; 8] = [1, 2, 3, 7, 12, 18, 27, 40];

/// The failing library, and its control file.
struct Device {
    folder: tempfile::TempDir,
}

/// Compiles one of the libraries in `tests/support` that are loaded before libc.
pub fn library(folder: &Path, name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let built = folder.join(format!("{name}.so"));
    let status = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .arg(&built)
        .arg(tests.join(format!("{name}.c")))
        .args(["-ldl", "-lpthread"])
        .status();
    assert!(status.unwrap().success());
    built
}

impl Device {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        library(folder.path(), "fail_io");
        let device = Self { folder };
        device.fail_in(0);
        device
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// The `count`th call from now on fails; with 0, none fails.
    fn fail_in(&self, count: i64) {
        // Write in place, because the host has the file mapped.
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.control())
            .unwrap();
        file.write_all(&count.to_ne_bytes()).unwrap();
    }

    fn has_failed(&self) -> bool {
        let mut count = [0; 8];
        let mut file = std::fs::File::open(self.control()).unwrap();
        file.read_exact(&mut count).unwrap();
        i64::from_ne_bytes(count) == 0
    }

    fn under(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.folder.path().join("fail_io.so"))
            .env("FAIL_IO_CONTROL", self.control());
    }
}

#[test]
fn a_single_device_error_loses_nothing() {
    let device = Device::new();
    let site = Site::new(&["obs-events"]);
    let mut command = site.command();
    device.under(&mut command);
    let host = Host::spawn(command);
    running(&host, "obs");
    let mut published = 0;
    for round in 1..=ROUNDS {
        device.fail_in(i64::try_from(round).unwrap());
        // Continue until the call has failed, and a little longer.
        loop {
            site.publish(&obs(published + 1, 5));
            published += 5;
            site.wait_for_rows(&host, "obs_events", published);
            if device.has_failed() {
                break;
            }
        }
    }
    host.wait("ready again", LIMIT, |host| host.get("/readyz").unwrap().0 == 200);
    site.end(host);
    let distinct = query(
        site.dir(),
        "SELECT count(*), count(DISTINCT event_record_id) FROM obs_events",
    );
    assert_eq!(distinct, [format!("{published}|{published}")]);
}

#[test]
fn a_device_error_at_the_start_is_reported_or_survived() {
    let device = Device::new();
    let server = NatsServer::start();
    let plugins = plugin_folder(&["obs-events"]);
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("data");
    let host = Host::start(&dir, &server.url(), plugins.path());
    running(&host, "obs");
    publish(&server, &obs(1, 5));
    host.terminate();
    let identity = std::fs::read(dir.join("instance")).unwrap();
    for call in AT_START {
        std::fs::remove_dir_all(&dir).unwrap();
        // Without its identity it would be another host, which would not take over the consumer.
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("instance"), &identity).unwrap();
        device.fail_in(call);
        let mut command = Host::command(&dir, &server.url(), plugins.path());
        device.under(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut up = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.take().unwrap()),
            &mut up,
        )
        .unwrap();
        if up.is_empty() {
            let mut words = String::new();
            child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            assert!(!child.wait().unwrap().success());
            assert!(
                words.contains("lantern.db") && !words.contains("panic"),
                "{call}: {words}"
            );
        }
        drop(child.kill());
        child.wait().unwrap();
        // The next start recovers from any partial initialization.
        let host = Host::start(&dir, &server.url(), plugins.path());
        wait_for_rows(&host, &dir, "obs_events", 5);
        host.terminate();
        sound(&dir);
    }
}
