//! Limits and settings of the three streams.

use std::time::Duration;

use aioq::__private::{bytes, names, span};
use aioq::Result;
use aioq::broker::Finding;
use serde_json::{Value, json};

use crate::api::call;
use crate::session::Session;
use crate::setup::streams::wanted;

/// Stream with its actual and its wanted configuration.
pub(super) struct Stream {
    pub(super) name: String,
    /// Contents, for messages.
    holds: &'static str,
    wanted: Value,
    pub(super) config: Value,
    pub(super) cluster: Value,
}

impl Stream {
    /// Reads the streams of jobs, of records and of keys, in this order.
    pub(super) async fn read_all(session: &Session) -> Result<[Self; 3]> {
        let [jobs, records, kv] = wanted(&session.options, &session.names);
        let records = Self::read(session, "results and dead letters", records);
        let kv = Self::read(session, "pauses, cancels, schedules and the list of workers", kv);
        let (jobs, records, kv) = tokio::try_join!(Self::read(session, "jobs", jobs), records, kv)?;
        Ok([jobs, records, kv])
    }

    async fn read(session: &Session, holds: &'static str, wanted: Value) -> Result<Self> {
        let name = wanted["name"].as_str().unwrap_or_default().to_owned();
        let what = format!("STREAM.INFO.{name}");
        let mut found = call(&session.link, session.deadline(), &what, None).await??;
        let (config, cluster) = (found["config"].take(), found["cluster"].take());
        Ok(Self { name, holds, wanted, config, cluster })
    }

    pub(super) fn replicas(&self) -> u64 {
        self.config["num_replicas"].as_u64().unwrap_or(1)
    }

    /// Limit, if one is set.
    fn limit(&self, key: &str) -> Option<u64> {
        self.config[key].as_u64().filter(|limit| *limit > 0)
    }

    /// Effect of a limit on messages beyond it.
    fn fate(&self) -> &'static str {
        if self.config["discard"] == "new" { "refuses new ones" } else { "drops the oldest" }
    }

    fn limits(&self) -> Vec<Finding> {
        let Self { name, holds, .. } = self;
        let mut limits = Vec::new();
        let mut limit = |key: &str, option: &str, text: String| {
            let advice = format!("Remove `{key}`: `nats stream edit {name} {option}`.");
            limits.push(Finding::warning("stream_limits", text).advice(advice));
        };
        if let Some(most) = self.limit("max_msgs") {
            let text = format!(
                "The stream `{name}` holds at most {most} messages, and then {}: {holds}.",
                self.fate()
            );
            limit("max_msgs", "--max-msgs=-1", text);
        }
        if let Some(most) = self.limit("max_bytes") {
            let (most, fate) = (bytes(most), self.fate());
            let text = format!("The stream `{name}` holds at most {most}, and then {fate}: {holds}.");
            limit("max_bytes", "--max-bytes=-1", text);
        }
        if let Some(most) = self.limit("max_age") {
            let most = span(Duration::from_nanos(most));
            let text = format!("The stream `{name}` drops what is older than {most}, done or not: {holds}.");
            limit("max_age", "--max-age=0", text);
        }
        limits
    }
}

/// Findings about limits by which a stream drops or refuses messages that aioq must keep.
pub(super) fn limits(streams: &[Stream; 3], max_body_bytes: usize) -> Vec<Finding> {
    let mut found: Vec<Finding> = streams.iter().flat_map(Stream::limits).collect();
    found.extend(streams.iter().filter_map(|stream| message_size(stream, max_body_bytes)));
    if found.is_empty() {
        let text = "The streams have no limits by count, size or age: nothing is dropped but by aioq itself.";
        found.push(Finding::fine("stream_limits", text));
    }
    found
}

fn message_size(stream: &Stream, max_body_bytes: usize) -> Option<Finding> {
    let most = stream.limit("max_msg_size").filter(|most| *most < max_body_bytes as u64)?;
    let name = &stream.name;
    let (most, allowed) = (bytes(most), bytes(max_body_bytes as u64));
    let text =
        format!("The stream `{name}` takes messages of {most} at most, while a job may have {allowed}.");
    let advice = format!("Remove `max_msg_size`: `nats stream edit {name} --max-msg-size=-1`.");
    Some(Finding::warning("stream_limits", text).advice(advice))
}

/// Settings that aioq declares and needs.
const DECLARED: [&str; 7] = [
    "subjects",
    "retention",
    "allow_direct",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "max_msgs_per_subject",
    "republish",
];

/// Settings that must be off, and the harm that each does.
const HARMFUL: [(&str, &str); 4] = [
    ("no_ack", "the server confirms nothing, so that every kick ends in an error"),
    ("sealed", "nothing can be added to it or removed from it"),
    ("deny_delete", "jobs cannot be cancelled"),
    ("deny_purge", "queues cannot be emptied and old records stay for ever"),
];

/// Findings about settings that differ from those that aioq needs.
pub(super) fn settings(streams: &[Stream; 3]) -> Vec<Finding> {
    let mut found: Vec<Finding> = streams.iter().filter_map(undeclared).collect();
    for stream in streams {
        let on = HARMFUL.iter().filter(|(key, _)| stream.config[*key] == true);
        found.extend(on.map(|(key, harm)| {
            let text = format!("The stream `{}` has `{key}` set: {harm}.", stream.name);
            let advice = "Set it back, or stop all programs, delete the stream and let them make a new one.";
            Finding::warning("stream_settings", text).advice(advice)
        }));
        if stream.config["discard"] == "new" && stream.limits().is_empty() {
            let text = format!(
                "The stream `{}` refuses new messages when it is full; it has no limit now.",
                stream.name
            );
            found.push(Finding::remark("stream_settings", text));
        }
    }
    if found.is_empty() {
        let text =
            "The streams are set as aioq declares them: subjects, retention, direct reads, schedules, TTLs.";
        found.push(Finding::fine("stream_settings", text));
    }
    found
}

/// Finding about settings that are not as declared.
fn undeclared(stream: &Stream) -> Option<Finding> {
    let differs = |key: &&str| {
        let wanted = &stream.wanted[*key];
        !wanted.is_null() && sorted(wanted) != sorted(&stream.config[*key])
    };
    let differing: Vec<&str> = DECLARED.into_iter().filter(differs).collect();
    if differing.is_empty() {
        return None;
    }
    let (name, differing) = (&stream.name, names(differing));
    let text = format!("An operator changed the stream `{name}`: {differing} is not as aioq declares it.");
    let advice = "Restart a worker: it restores the settings that can be restored, and names the others.";
    Some(Finding::warning("stream_settings", text).advice(advice))
}

/// Value for comparison: a list sorted, and null as `false`, which the server reports for it.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(list) = value.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
    if value.is_null() { json!(false) } else { value }
}

/// Finding about the server's memory for message ids.
pub(super) fn duplicate_window(streams: &[Stream; 3]) -> Vec<Finding> {
    let window = span(Duration::from_nanos(streams[0].config["duplicate_window"].as_u64().unwrap_or(0)));
    let text = format!(
        "The server's duplicate window is {window}; aioq does not depend on it: an id is locked as long as \
         its job exists."
    );
    vec![Finding::fine("duplicate_window", text)]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use aioq::broker::Level;

    /// Three streams as aioq declares them, each changed by `change`.
    pub(crate) fn streams(change: impl Fn(&mut Value, &mut Value)) -> [Stream; 3] {
        let options = crate::options::Options::new(String::new());
        let names = crate::wire::names::Names::new("aioq").unwrap();
        wanted(&options, &names).map(|wanted| {
            let (mut config, mut cluster) = (wanted.clone(), json!({ "leader": "a" }));
            change(&mut config, &mut cluster);
            let name = wanted["name"].as_str().unwrap().to_owned();
            Stream { name, holds: "jobs", wanted, config, cluster }
        })
    }

    fn levels(findings: &[Finding]) -> Vec<Level> {
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn streams_as_declared_are_fine() {
        let streams = streams(|_, _| {});
        assert_eq!(levels(&limits(&streams, 1 << 20)), [Level::Fine]);
        assert_eq!(levels(&settings(&streams)), [Level::Fine]);
    }

    #[test]
    fn every_limit_of_every_stream_is_reported() {
        for (key, value) in
            [("max_msgs", 10), ("max_bytes", 1 << 20), ("max_age", 1_000_000_000), ("max_msg_size", 1)]
        {
            let streams = streams(|config, _| config[key] = value.into());
            let found = limits(&streams, 1 << 20);
            assert_eq!(levels(&found), [Level::Warning; 3], "{key}: {found:?}");
            assert!(found[2].text.contains("AIOQ_KV"), "{found:?}");
        }
    }

    #[test]
    fn every_harmful_setting_is_reported() {
        for (key, value) in [
            ("no_ack", json!(true)),
            ("deny_purge", json!(true)),
            ("allow_msg_ttl", json!(false)),
            ("allow_msg_ttl", Value::Null),
            ("max_msgs_per_subject", json!(7)),
            ("subjects", json!(["x.>"])),
        ] {
            let streams = streams(|config, _| config[key] = value.clone());
            let found = settings(&streams);
            assert_eq!(levels(&found), [Level::Warning; 3], "{key}: {found:?}");
        }
    }
}
