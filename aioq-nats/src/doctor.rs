//! What an operator should know of the server and the streams: [`examine`].
//!
//! Each file reads what it needs and turns it into findings by functions that can be tested without a server.

mod account;
mod clock;
mod consumers;
mod copies;
mod disk;
mod server;
mod stream;

use std::time::Duration;

use aioq::Result;
use aioq::broker::Finding;

use self::stream::Stream;
use crate::connection::Session;

/// All findings, what a loss would cost first.
pub(crate) async fn examine(session: &Session) -> Result<Vec<Finding>> {
    let streams = Stream::read_all(session).await?;
    let in_cluster = session.link.client().server_info().cluster.is_some();
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

/// A span of time as people write it, to the unit that it is whole in.
fn span(span: Duration) -> String {
    let whole = |seconds: u64| {
        span.subsec_nanos() == 0 && span.as_secs() > 0 && span.as_secs().is_multiple_of(seconds)
    };
    match () {
        () if whole(86_400) => format!("{} d", span.as_secs() / 86_400),
        () if whole(3600) => format!("{} h", span.as_secs() / 3600),
        () if whole(60) => format!("{} min", span.as_secs() / 60),
        () if whole(1) => format!("{} s", span.as_secs()),
        () => format!("{span:.1?}"),
    }
}

/// Names in a sentence: `A`, `B` and `C`.
fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// So many of something: `1 job`, `2 jobs`.
fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// Bytes in the unit that says enough.
fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_said_as_people_say_them() {
        let spans = [0.1, 30.0, 90.0, 120.0, 7200.0, 86_400.0].map(Duration::from_secs_f64).map(span);
        assert_eq!(spans, ["100.0ms", "30 s", "90 s", "2 min", "2 h", "1 d"]);
        assert_eq!([names(["a"]), names(["a", "b", "c"])], ["`a`", "`a`, `b` and `c`"]);
        assert_eq!([bytes(10), bytes(960 << 10), bytes(3 << 29)], ["10 bytes", "960 KiB", "1.5 GiB"]);
    }
}
