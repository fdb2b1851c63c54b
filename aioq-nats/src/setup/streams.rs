//! Declares the three streams if they are missing, and verifies them at each start.

use aioq::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::api::call_setup;
use crate::error::Refusal;
use crate::link::{Deadline, Link};
use crate::options::Options;
use crate::wire::names::Names;

/// Consumers of one stream. Each queue has three.
const MAX_CONSUMERS: i64 = 100_000;

/// Checks that JetStream is on, and declares or verifies the streams. Any number of processes may
/// do this at once.
pub(crate) async fn declare(link: &Link, deadline: Deadline, options: &Options, names: &Names) -> Result<()> {
    check_jetstream(link, deadline).await?;
    declare_missing(link, deadline, options, names).await.map(drop)
}

/// Declares or verifies the streams. Returns the names of those that were missing.
pub(crate) async fn declare_missing(
    link: &Link,
    deadline: Deadline,
    options: &Options,
    names: &Names,
) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for wanted in wanted(options, names) {
        if declare_one(link, deadline, &wanted, &options.prefix).await? {
            missing.push(wanted["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(missing)
}

async fn check_jetstream(link: &Link, deadline: Deadline) -> Result<()> {
    let off = || {
        let address = link.address();
        let message = format!("JetStream is off at {address}: start the server with `nats-server -js`");
        Error::new(ErrorKind::Config, message)
    };
    // A single server without JetStream would not answer. In a cluster another server may have it.
    if !link.client().server_info().jetstream && !link.is_clustered() {
        return Err(off());
    }
    match call_setup(link, deadline, "INFO", None).await? {
        Ok(_) => Ok(()),
        Err(refusal) if matches!(refusal.reason, Refusal::NO_JETSTREAM | Refusal::JETSTREAM_OFF) => {
            Err(off())
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Configurations of the streams of jobs, of records and of keys.
pub(crate) fn wanted(options: &Options, names: &Names) -> [Value; 3] {
    let three = |kind: &str| names.under_prefix(&format!("{kind}.*.*.*"));
    let base = |name: &str, subjects: Vec<String>| {
        json!({
            "name": name,
            "subjects": subjects,
            "storage": "file",
            "num_replicas": options.replicas,
            // No limits by count or size: the server would drop the oldest jobs.
            "max_msgs": -1, "max_bytes": -1, "max_age": 0,
            // Set, because the default of 1,000 is soon reached with three consumers per queue.
            "max_consumers": MAX_CONSUMERS,
            "discard": "old",
            "allow_direct": true,
            "allow_msg_ttl": true,
        })
    };
    let mut jobs = base(&names.jobs, ["q", "s", "t"].map(three).to_vec());
    jobs["retention"] = "workqueue".into();
    jobs["allow_msg_schedules"] = true.into();
    jobs["max_msgs_per_subject"] = (-1).into();
    let state = |name: &str, subject: String, republish: (&str, &str)| {
        let mut state = base(name, vec![subject]);
        state["retention"] = "limits".into();
        state["max_msgs_per_subject"] = 1.into();
        state["republish"] =
            json!({ "src": names.under_prefix(republish.0), "dest": names.under_prefix(republish.1) });
        state
    };
    let records = state(&names.records, three("r"), ("r.>", "done.>"));
    let kv = state(&names.kv, names.under_prefix("kv.>"), ("kv.>", "kvdone.>"));
    [jobs, records, kv]
}

/// Declares or verifies a stream. True if it was missing.
async fn declare_one(link: &Link, deadline: Deadline, wanted: &Value, prefix: &str) -> Result<bool> {
    let name = wanted["name"].as_str().unwrap_or_default();
    let info = format!("STREAM.INFO.{name}");
    match call_setup(link, deadline, &info, None).await? {
        Ok(found) => {
            return verify(link, deadline, wanted, &found["config"], prefix).await.map(|()| false);
        }
        Err(refusal) if refusal.reason == Refusal::STREAM_NOT_FOUND => {}
        Err(refusal) => return Err(refusal.into()),
    }
    match call_setup(link, deadline, &format!("STREAM.CREATE.{name}"), Some(wanted)).await? {
        Ok(_) => Ok(true),
        // Another process declared it in the meantime, with another version or other settings.
        Err(refusal) if refusal.reason == Refusal::STREAM_NAME_IN_USE => {
            let found = call_setup(link, deadline, &info, None).await??;
            verify(link, deadline, wanted, &found["config"], prefix).await.map(|()| false)
        }
        Err(refusal) if refusal.reason == Refusal::SUBJECTS_OVERLAP => {
            Err(taken(&format!("another stream holds subjects under `{prefix}.`"), prefix))
        }
        Err(refusal) => Err(Error::from(refusal).context(format!("cannot create stream {name}"))),
    }
}

/// Checks an existing stream. Adds the settings that it lacks and keeps those that an operator may
/// have tuned.
async fn verify(link: &Link, deadline: Deadline, wanted: &Value, found: &Value, prefix: &str) -> Result<()> {
    let name = wanted["name"].as_str().unwrap_or_default();
    if sorted(&wanted["subjects"]) != sorted(&found["subjects"]) || wanted["retention"] != found["retention"]
    {
        return Err(taken(&format!("the stream {name} is owned by something else"), prefix));
    }
    if wanted["num_replicas"] != found["num_replicas"] {
        tracing::warn!(stream = name, wanted = %wanted["num_replicas"], found = %found["num_replicas"],
            "the stream exists with another number of replicas and keeps it; change it with `nats stream edit`");
    }
    let mut merged = found.clone();
    for key in ["allow_direct", "allow_msg_ttl", "allow_msg_schedules", "max_msgs_per_subject", "republish"] {
        if !wanted[key].is_null() {
            merged[key] = wanted[key].clone();
        }
    }
    if merged == *found {
        return Ok(());
    }
    let updated = call_setup(link, deadline, &format!("STREAM.UPDATE.{name}"), Some(&merged)).await?;
    updated
        .map(|_| ())
        .map_err(|refusal| Error::from(refusal).context(format!("cannot update stream {name}")))
}

fn sorted(subjects: &Value) -> Vec<&str> {
    let mut subjects: Vec<_> = subjects.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    subjects.sort_unstable();
    subjects
}

/// Error for names that something else uses.
fn taken(what: &str, prefix: &str) -> Error {
    let message = format!("{what}: choose another prefix than `{prefix}`, or delete that stream");
    Error::new(ErrorKind::Config, message)
}
