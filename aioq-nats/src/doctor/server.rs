//! Version and limits of the connected server.

use aioq::__private::bytes;
use aioq::broker::Finding;

use crate::link::{OLDEST_SERVER, is_new_enough};
use crate::session::Session;

/// Body size below which a job's error history may not fit beside its arguments.
const MIN_BODY: usize = 64 * 1024;

/// Body size at the default `max_payload` of 1 MiB, less the space for headers.
const DEFAULT_BODY: usize = (1 << 20) - (64 << 10);

/// Version of the server. Startup refuses an old one, but the connection may have moved to another
/// server since.
pub(super) fn version(session: &Session) -> Vec<Finding> {
    let version = session.link.client().server_info().version;
    let (major, minor) = OLDEST_SERVER;
    if is_new_enough(&version) {
        let text = format!("The server is nats-server {version}; aioq needs {major}.{minor} or newer.");
        return vec![Finding::fine("server_version", text)];
    }
    let text = format!("The server is nats-server {version}, but aioq needs {major}.{minor} or newer.");
    vec![Finding::warning("server_version", text).advice("Upgrade every server of the cluster.")]
}

/// Largest possible job.
pub(super) fn max_payload(session: &Session) -> Vec<Finding> {
    let payload = session.link.client().max_payload();
    vec![judge_payload(payload, session.max_body_bytes(), session.options.max_body_bytes)]
}

fn judge_payload(payload: usize, body: usize, configured: usize) -> Finding {
    let size = |size: usize| bytes(size as u64);
    let text = format!(
        "A job, its arguments included, may have {}; the server takes messages of {} (`max_payload`).",
        size(body),
        size(payload)
    );
    let advice =
        "Raise `max_payload` in the server's configuration: 1MB is its default, 8MB the most advised.";
    if body < MIN_BODY.min(configured) {
        Finding::warning("max_payload", text).advice(advice)
    } else if body < DEFAULT_BODY.min(configured) {
        Finding::remark("max_payload", text).advice(advice)
    } else {
        Finding::fine("max_payload", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::broker::Level;

    #[test]
    fn a_server_with_a_low_limit_is_reported() {
        let level = |payload: usize, configured: usize| {
            judge_payload(payload, configured.min(payload.saturating_sub(64 << 10)), configured).level
        };
        assert_eq!(level(1 << 20, 1 << 20), Level::Fine);
        assert_eq!(level(1 << 20, 10 << 10), Level::Fine);
        assert_eq!(level(512 << 10, 1 << 20), Level::Remark);
        assert_eq!(level(100 << 10, 1 << 20), Level::Warning);
    }
}
