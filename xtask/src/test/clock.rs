//! Stage `clock`: the fast tests again, in other time zones and at other dates.
//!
//! A test that compares a fixed date with the current one passes today and fails next year. Unit tests and API tests need
//! neither a broker nor another process, so they run in seconds on one shifted clock. Other tests use a nats-server, a
//! static program whose clock libfaketime cannot shift.

use std::ffi::OsStr;

use anyhow::Result;

use super::{Session, Tally, Verdict, require_tests};
use crate::{process, web};

/// A time zone (one ahead of UTC and one behind, each with a half-hour offset) and a shift of the clock.
const CLOCKS: [(&str, &str); 2] = [("Asia/Kolkata", "+370d"), ("America/St_Johns", "-1d")];

/// The same targets and features as the stages `unit` and `integration`, so that nothing is compiled again.
const TARGETS: [&str; 2] = ["--lib --bins", "--test api"];

/// Runs the fast tests once for each clock. Without libfaketime only the time zone changes, and the summary says so.
pub fn check(session: &mut Session) -> Result<Verdict> {
    let shifts = process::output_of(OsStr::new("faketime"), &["--version"]).is_some();
    for (zone, shift) in CLOCKS {
        // The monotonic clock is not shifted.
        let prefix: &[&str] = match shifts {
            true => &["faketime", "--exclude-monotonic", "-f", shift],
            false => &[],
        };
        for targets in TARGETS {
            let mut command = session.test_command();
            command.args(targets.split(' ')).env("TZ", zone);
            if shifts {
                // Cargo uses this runner only for the test programs.
                command.args(["--config", &format!(r#"target."cfg(all())".runner={prefix:?}"#)]);
            }
            require_tests(session.run_tests(command)?)?;
        }
        let mut stage_tally = Tally::default();
        let outcome = web::unit(&session.workspace, prefix, zone, |line| stage_tally.print(line));
        session.tally.add(stage_tally);
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
