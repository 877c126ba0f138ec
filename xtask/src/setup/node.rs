//! Node, which builds the dashboard and runs its tests. It is not installed automatically; everything except the dashboard
//! works without it.

use std::ffi::OsStr;

use anyhow::{Context, Result};

use crate::process;

/// The minimum version of the bundler.
const OLDEST: (u32, u32) = (20, 19);

/// Prints whether a supported Node is installed. A machine without one can still build and run the host.
pub fn report() {
    match find() {
        Ok(version) => println!("    node: {version}"),
        Err(error) => println!("    node: not found, so the dashboard is not built ({error})"),
    }
}

/// The version of the Node on `PATH`. Fails with installation instructions if there is none or an old one.
pub fn find() -> Result<String> {
    let how = "the dashboard requires Node 20.19 or later with npm: https://nodejs.org, or the package of your system";
    let version = process::output_of(OsStr::new("node"), &["--version"]).context(how)?;
    process::output_of(OsStr::new("npm"), &["--version"]).context(how)?;
    match parse(&version) {
        Some(found) if found >= OLDEST => Ok(version),
        _ => anyhow::bail!("found node {version}; {how}"),
    }
}

/// Parses `v20.20.2`.
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
