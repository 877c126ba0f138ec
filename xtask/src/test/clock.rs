//! Stage `clock`: the fast tests again, with other time zones and other dates.
//!
//! A test that compares a fixed date with the present passes today and fails next year. The unit tests and the API tests
//! need neither a broker nor another process, so they run in seconds and share one shifted clock. Other tests talk to a
//! nats-server, which is a static program that libfaketime cannot shift.

use std::ffi::OsStr;

use anyhow::Result;

use super::{Session, Tally, Verdict, some};
use crate::{process, web};

/// A time zone (one ahead of UTC and one behind it, each off by a half hour) and a shift of the clock.
const CLOCKS: [(&str, &str); 2] = [("Asia/Kolkata", "+370d"), ("America/St_Johns", "-1d")];

/// The same targets and features as the stages `unit` and `integration`, so that nothing is compiled again.
const TARGETS: [&str; 2] = ["--lib --bins --features lantern/oci", "--test api"];

/// Runs the fast tests once for each clock. Without libfaketime only the time zone changes, and the summary says so.
pub fn check(session: &mut Session) -> Result<Verdict> {
    let shifts = process::answer(OsStr::new("faketime"), &["--version"]).is_some();
    for (zone, shift) in CLOCKS {
        // Time that is only measured (the monotonic clock) stays as it is.
        let prefix: &[&str] = match shifts {
            true => &["faketime", "--exclude-monotonic", "-f", shift],
            false => &[],
        };
        for targets in TARGETS {
            let mut command = session.test_command();
            command.args(targets.split(' ')).env("TZ", zone);
            if shifts {
                // Cargo starts the test programs, and only those, behind this.
                command.args(["--config", &format!(r#"target."cfg(all())".runner={prefix:?}"#)]);
            }
            some(session.run_tests(command)?)?;
        }
        let mut here = Tally::default();
        let outcome = web::unit(&session.workspace, prefix, zone, |line| here.print(line));
        session.tally.add(here);
        outcome?;
    }
    if shifts {
        return Ok(Verdict::Done);
    }
    Ok(Verdict::Skipped(
        "tests ran in other time zones but not at other dates: `faketime` is not installed (Debian: apt-get install faketime)"
            .to_owned(),
    ))
}
