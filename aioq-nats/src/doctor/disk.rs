//! Cost of a crash of the server's process, and of a power loss.
//!
//! The interval at which the server syncs its files is a setting of the server, which answers only
//! its system account (`$SYS.REQ.SERVER.PING.JSZ`). That account may export the service to others,
//! so it is worth asking.

use std::time::Duration;

use aioq::__private::{names, span};
use aioq::Result;
use aioq::broker::Finding;
use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use super::stream::Stream;
use crate::error::unsent;
use crate::session::Session;

const SYNC_SERVICE: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// Time limit for the first answer, and between answers.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Default `sync_interval` of a server.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(120);

/// Time at which a server writes its files to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before each confirmation.
    Always,
    /// At this interval.
    Every(Duration),
}

impl Sync {
    /// Parses a server's answer; `None` if it has no JetStream.
    fn parse(answer: &Value) -> Option<Self> {
        let config = &answer["data"]["config"];
        if config["sync_always"] == true {
            return Some(Self::Always);
        }
        config["sync_interval"].as_u64().map(|nanos| Self::Every(Duration::from_nanos(nanos)))
    }
}

/// Sync settings of the servers; empty if they do not answer.
pub(super) async fn read_syncs(session: &Session, in_cluster: bool) -> Result<Vec<Sync>> {
    let inbox = session.link.new_inbox();
    let mut answers = session.link.subscribe(inbox.clone()).await?;
    let client = session.link.client();
    client.publish_with_reply(SYNC_SERVICE, inbox, Bytes::new()).await.map_err(unsent)?;
    let mut syncs = Vec::new();
    while let Ok(Some(message)) = timeout(ANSWER_TIMEOUT, answers.next()).await {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        syncs.extend(sync_of(&message));
        if !in_cluster {
            break;
        }
    }
    Ok(syncs)
}

fn sync_of(message: &Message) -> Option<Sync> {
    Sync::parse(&serde_json::from_slice(&message.payload).ok()?)
}

/// Cost of a crash or a restart of the server's process.
pub(super) fn process_crash(streams: &[Stream; 3]) -> Vec<Finding> {
    let which = |key: &str, value: &str| {
        let found: Vec<&str> =
            streams.iter().filter(|stream| stream.config[key] == value).map(|stream| &*stream.name).collect();
        (!found.is_empty()).then(|| names(found))
    };
    let mut found = Vec::new();
    if let Some(names) = which("storage", "memory") {
        let text = format!(
            "{names} is kept in memory only: when the server ends, by a crash, a restart or a power loss, \
             all of it is lost."
        );
        let advice = "Stop all programs, delete the stream and let them make a new one: aioq declares files.";
        found.push(Finding::warning("process_crash", text).advice(advice));
    }
    if let Some(names) = which("persist_mode", "async") {
        let text = format!(
            "{names} is confirmed before it is written (`persist_mode: async`): a crash of the server's \
             process loses confirmed jobs."
        );
        let advice =
            "Stop all programs, delete the stream and let them make a new one with the default mode.";
        found.push(Finding::warning("process_crash", text).advice(advice));
    }
    if found.is_empty() {
        let text = "A crash of the server's process costs no confirmed job: the streams are in files. The \
                    jobs of a worker that crashes run again, unless their task acks them when it starts.";
        found.push(Finding::fine("process_crash", text));
    }
    found
}

/// Cost of a power loss. Certain only if at least as many servers answered as keep copies.
pub(super) fn power_loss(streams: &[Stream; 3], syncs: &[Sync]) -> Vec<Finding> {
    let copies = streams.iter().map(Stream::replicas).min().unwrap_or(1);
    let slowest = syncs.iter().map(|sync| match sync {
        Sync::Always => Duration::ZERO,
        Sync::Every(interval) => *interval,
    });
    let finding = match slowest.max().filter(|_| syncs.len() as u64 >= copies) {
        Some(Duration::ZERO) => {
            let text = "A power loss costs no confirmed job: the server writes to the disk before it \
                        confirms (`sync_interval: always`).";
            Finding::fine("power_loss", text)
        }
        Some(interval) => {
            let text = format!(
                "The server writes to the disk every {} (`sync_interval`): {}.",
                span(interval),
                cost(copies, interval)
            );
            Finding::remark("power_loss", text).advice(ALWAYS)
        }
        None => {
            let text = format!(
                "The server's `sync_interval` cannot be read with these credentials: unless its \
                 configuration says `sync_interval: always`, {}.",
                cost(copies, DEFAULT_INTERVAL)
            );
            let advice = format!(
                "{ALWAYS} To have it checked here, export the service `{SYNC_SERVICE}` from the system account to \
                 this one."
            );
            Finding::remark("power_loss", text).advice(advice)
        }
    };
    vec![finding]
}

const ALWAYS: &str = "If that is too much, set `sync_interval: always` in the `jetstream` block of the \
                      server's configuration; kicks then wait for the disk.";

fn cost(copies: u64, interval: Duration) -> String {
    let interval = span(interval);
    match copies {
        0..3 => format!(
            "up to {interval} of confirmed kicks are in the page cache, and a power loss or a crash of the \
             machine takes them"
        ),
        _ => format!(
            "up to {interval} of confirmed kicks are in the page caches of most servers, and a power loss of \
             all of them at once takes them; that of one alone, while the others are in touch, does not"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::tests::streams;
    use super::*;
    use aioq::broker::Level;
    use serde_json::json;

    #[test]
    fn the_sync_settings_of_a_server_are_read() {
        let parse = |config: Value| Sync::parse(&json!({ "data": { "config": config } }));
        let two_minutes = json!({ "sync_interval": 120_000_000_000_u64 });
        assert_eq!(parse(two_minutes), Some(Sync::Every(Duration::from_secs(120))));
        assert_eq!(
            parse(json!({ "sync_interval": 120_000_000_000_u64, "sync_always": true })),
            Some(Sync::Always)
        );
        assert_eq!(parse(Value::Null), None);
    }

    #[test]
    fn the_slowest_server_decides() {
        let of = |syncs: &[Sync]| power_loss(&streams(|_, _| {}), syncs).remove(0);
        let copies = streams(|config, _| config["num_replicas"] = 3.into());
        assert_eq!(power_loss(&copies, &[Sync::Always; 2])[0].level, Level::Remark);
        assert_eq!(power_loss(&copies, &[Sync::Always; 3])[0].level, Level::Fine);
        assert_eq!(of(&[Sync::Always, Sync::Always]).level, Level::Fine);
        let mixed = of(&[Sync::Always, Sync::Every(Duration::from_secs(10))]);
        assert!(mixed.level == Level::Remark && mixed.text.contains("10 s"), "{mixed:?}");
        let unknown = of(&[]);
        assert!(unknown.text.contains("cannot be read") && unknown.text.contains("2 min"), "{unknown:?}");
    }

    #[test]
    fn data_that_ends_with_the_process_is_a_warning() {
        let level = |streams| process_crash(&streams).remove(0).level;
        assert_eq!(level(streams(|_, _| {})), Level::Fine);
        assert_eq!(level(streams(|config, _| config["storage"] = "memory".into())), Level::Warning);
        assert_eq!(level(streams(|config, _| config["persist_mode"] = "async".into())), Level::Warning);
    }
}
