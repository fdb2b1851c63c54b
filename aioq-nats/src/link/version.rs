//! Required version of the server.

use aioq::{Error, ErrorKind, Result};

/// Oldest server with every feature that aioq uses: schedules with time zones, TTLs, counts in
/// batches.
pub(crate) const OLDEST_SERVER: (u32, u32) = (2, 14);

/// Refuses a server that is too old.
///
/// # Errors
/// [`Config`](ErrorKind::Config); the message names the version found and the one needed.
pub(crate) fn check_version(version: &str, address: &str) -> Result<()> {
    if is_new_enough(version) {
        return Ok(());
    }
    let (major, minor) = OLDEST_SERVER;
    let message =
        format!("nats-server {version} at {address} is too old: aioq needs {major}.{minor} or newer");
    Err(Error::new(ErrorKind::Config, message))
}

/// True if a server of this version has every feature that aioq uses.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0_u32), numbers.next().unwrap_or(0_u32)) >= OLDEST_SERVER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_needed_are_refused_by_name() {
        for version in ["2.14.0", "2.15.1", "2.14.0-RC.1", "v3.0.0"] {
            assert!(check_version(version, "nats://a").is_ok(), "{version}");
        }
        for version in ["2.9.1", "2.13.99", "1.4.1", "", "dev"] {
            assert_eq!(
                check_version(version, "nats://a").unwrap_err().kind(),
                ErrorKind::Config,
                "{version}"
            );
        }
        assert_eq!(
            check_version("2.9.1", "nats://a:4222").unwrap_err().to_string(),
            "nats-server 2.9.1 at nats://a:4222 is too old: aioq needs 2.14 or newer"
        );
    }
}
