//! Findings for operators about the server and the streams: [`examine`].
//!
//! Each file reads one thing from the server and judges it in functions that can be tested without
//! a server.

mod account;
mod clock;
mod consumers;
mod copies;
mod disk;
mod server;
mod stream;

use aioq::Result;
use aioq::broker::Finding;

use self::stream::Stream;
use crate::session::Session;

/// All findings. Those about the cost of a loss come first.
pub(crate) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let streams = Stream::read_all(session).await?;
    let in_cluster = session.link.is_clustered();
    let mut findings = server::version(session);
    findings.extend(disk::process_crash(&streams));
    findings.extend(disk::power_loss(&streams, &disk::read_syncs(session, in_cluster).await?));
    findings.extend(copies::losses(&streams, in_cluster));
    findings.extend(copies::state(&streams, session.options.replicas));
    findings.extend(stream::limits(&streams, session.max_body_bytes()));
    findings.extend(stream::settings(&streams));
    findings.extend(stream::duplicate_window(&streams));
    findings.extend(consumers::examine(session, &streams[0]).await?);
    findings.extend(account::examine(session).await?);
    findings.extend(server::max_payload(session));
    findings.extend(clock::examine(session).await?);
    Ok(findings)
}
