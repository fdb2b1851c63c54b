//! The server that this connection leads to.

use aioq::broker::Finding;

use super::bytes;
use crate::connection::Session;
use crate::link::version::{OLDEST_SERVER, is_new_enough};

/// Below this not even a job's error history is sure to fit beside its arguments.
const LEAST_BODY: usize = 64 * 1024;

/// What a server takes whose `max_payload` nobody has changed, 1 MiB, less what is kept free.
const USUAL_BODY: usize = (1 << 20) - (64 << 10);

/// Startup refuses an old one; a connection may have moved to another server of the cluster since.
pub(super) fn version(session: &Session) -> Vec<Finding> {
    let version = session.link.client().server_info().version;
    let (major, minor) = OLDEST_SERVER;
    let finding = match is_new_enough(&version) {
        true => Finding::fine(
            "server_version",
            format!("The server is nats-server {version}; aioq needs {major}.{minor} or newer."),
        ),
        false => Finding::warning(
            "server_version",
            format!("The server is nats-server {version}, but aioq needs {major}.{minor} or newer."),
        )
        .advice("Upgrade every server of the cluster."),
    };
    vec![finding]
}

/// How large a job may be.
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
    match () {
        () if body < LEAST_BODY.min(configured) => Finding::warning("max_payload", text).advice(advice),
        () if body < USUAL_BODY.min(configured) => Finding::remark("max_payload", text).advice(advice),
        () => Finding::fine("max_payload", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::broker::Level;

    #[test]
    fn a_server_that_takes_little_is_told() {
        let level = |payload: usize, configured: usize| {
            judge_payload(payload, configured.min(payload.saturating_sub(64 << 10)), configured).level
        };
        assert_eq!(level(1 << 20, 1 << 20), Level::Fine);
        assert_eq!(level(1 << 20, 10 << 10), Level::Fine);
        assert_eq!(level(512 << 10, 1 << 20), Level::Remark);
        assert_eq!(level(100 << 10, 1 << 20), Level::Warning);
    }
}
