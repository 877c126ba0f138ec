//! Node, which builds the dashboard and runs its tests. It is only looked for: a system has its own way of installing
//! it, and everything but the dashboard works without.

use std::ffi::OsStr;

use anyhow::{Context, Result};

use crate::process;

/// What the bundler asks for.
const OLDEST: (u32, u32) = (20, 19);

/// Says whether there is a Node that is new enough. A machine without one can still build and run the host.
pub fn look() {
    match find() {
        Ok(version) => println!("    node: {version}"),
        Err(error) => println!("    node: missing, so there is no dashboard ({error})"),
    }
}

/// The version of the Node on `PATH`. Fails, and says how to get one, when there is none or an old one.
pub fn find() -> Result<String> {
    let how = "Node 20.19 or later with npm is needed for the dashboard: https://nodejs.org, or the package of your system";
    let version = process::answer(OsStr::new("node"), &["--version"]).context(how)?;
    process::answer(OsStr::new("npm"), &["--version"]).context(how)?;
    match parse(&version) {
        Some(found) if found >= OLDEST => Ok(version),
        _ => anyhow::bail!("node is {version}. {how}"),
    }
}

/// Reads `v20.20.2`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parse("v20.20.2").unwrap() >= OLDEST);
        assert!(parse("v100.1.0").unwrap() >= OLDEST);
        assert!(parse("v20.9.0").unwrap() < OLDEST);
        assert!(parse("v18.20.2").unwrap() < OLDEST);
        assert_eq!(parse("20"), None);
    }
}
