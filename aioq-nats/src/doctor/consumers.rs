//! Consumers of the jobs' stream, which an operator may have changed.

use std::collections::BTreeSet;
use std::time::Duration;

use aioq::__private::{count, span};
use aioq::broker::Finding;
use aioq::{ErrorKind, Result};
use serde_json::{Value, json};

use super::stream::Stream;
use crate::api::call;
use crate::session::Session;
use crate::wire::lane::{Lane, consumer_name};
use crate::wire::names::Names;
use crate::wire::subject::MessageSubject;

/// Lease below which a slow network alone makes jobs run twice.
const SHORT_LEASE: Duration = Duration::from_secs(1);

/// Consumers that a stream without a limit of its own may have: `default_max_consumers` of
/// nats-server 2.15.1.
const DEFAULT_LIMIT: u64 = 1000;

pub(super) async fn examine(session: &Session, jobs: &Stream) -> Result<Vec<Finding>> {
    match read_all(session).await {
        Ok(consumers) => {
            let mut found: Vec<Finding> =
                consumers.iter().flat_map(|consumer| judge(&session.names, consumer)).collect();
            found.push(judge_count(
                &consumers,
                jobs.config["max_consumers"].as_u64().filter(|most| *most > 0),
            ));
            Ok(found)
        }
        // The user lacks the permission, or the cluster does not answer.
        Err(error) if matches!(error.kind(), ErrorKind::Deadline | ErrorKind::Permission) => {
            let text = "The consumers cannot be listed with these credentials.";
            let advice = format!("Allow `$JS.API.CONSUMER.LIST.{}`.", session.names.jobs);
            Ok(vec![Finding::remark("consumers", text).advice(advice)])
        }
        Err(error) => Err(error),
    }
}

async fn read_all(session: &Session) -> Result<Vec<Value>> {
    let endpoint = format!("CONSUMER.LIST.{}", session.names.jobs);
    let mut found = Vec::new();
    loop {
        let request = json!({ "offset": found.len() });
        let mut page = call(&session.link, session.deadline(), &endpoint, Some(&request)).await??;
        let total = page["total"].as_u64().unwrap_or(0);
        match page["consumers"].take() {
            Value::Array(consumers) if !consumers.is_empty() => found.extend(consumers),
            _ => return Ok(found),
        }
        if found.len() as u64 >= total {
            return Ok(found);
        }
    }
}

/// Findings about one consumer.
fn judge(own: &Names, consumer: &Value) -> Vec<Finding> {
    let config = &consumer["config"];
    let name = consumer["name"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    let mut warn = |text: String| {
        let stream = &own.jobs;
        let advice = format!(
            "Delete it, `nats consumer rm {stream} {name}`, and restart a worker, which declares what is \
             missing; no job is lost, but one that runs meanwhile may run twice."
        );
        found.push(Finding::warning("consumers", text).advice(advice));
    };
    if !is_ours(own, name, config) {
        warn(format!(
            "The consumer `{name}` is not one of aioq's: it takes jobs away from the workers, or keeps them \
             from listening."
        ));
        return found;
    }
    if config["ack_policy"] != "explicit" {
        warn(format!(
            "The consumer `{name}` has the ack policy {}: jobs count as done before they ran.",
            config["ack_policy"]
        ));
    }
    if let Some(most) = config["max_deliver"].as_i64().filter(|most| *most > 0) {
        warn(format!(
            "The consumer `{name}` delivers a job at most {most} times: after as many crashes it stays in \
             the queue for ever, delivered to nobody."
        ));
    }
    if consumer["paused"] == true {
        warn(format!(
            "The consumer `{name}` is paused on the server: no worker gets its jobs, whatever `queues` says."
        ));
    }
    let lease = Duration::from_nanos(config["ack_wait"].as_u64().unwrap_or(u64::MAX));
    if lease < SHORT_LEASE {
        let text = format!(
            "Leases of the consumer `{name}` last only {}: a slow network makes jobs run twice.",
            span(lease)
        );
        found.push(Finding::warning("consumers", text).advice("Start a worker with an `ack_wait` of 30s."));
    }
    found
}

/// True if the consumer has the name that belongs to its filter.
fn is_ours(own: &Names, name: &str, config: &Value) -> bool {
    let filter = config["filter_subject"].as_str().unwrap_or_default();
    let Some(subject) = MessageSubject::parse(filter) else { return false };
    let queue = subject.queue_name();
    let is_lane = |lane: &Lane| own.lane(&queue, *lane) == filter && consumer_name(&queue, *lane) == name;
    Lane::ALL.iter().any(is_lane)
}

/// Finding about the number of consumers.
fn judge_count(consumers: &[Value], limit: Option<u64>) -> Finding {
    let filters = consumers.iter().filter_map(|consumer| consumer["config"]["filter_subject"].as_str());
    let queues: BTreeSet<_> =
        filters.filter_map(MessageSubject::parse).map(|subject| subject.queue_name().into_owned()).collect();
    let leases = consumers.iter().filter_map(|consumer| consumer["config"]["ack_wait"].as_u64()).max();
    let (there, most) = (consumers.len() as u64, limit.unwrap_or(DEFAULT_LIMIT));
    let there_are = format!("{} for {}", count(there, "consumer"), count(queues.len() as u64, "queue"));
    if there * 5 >= most * 4 {
        let text = format!(
            "There are {there_are}, of {most} that the server allows in a stream: soon no worker can listen \
             to another queue."
        );
        let advice = "Use fewer queues, or raise `default_max_consumers` under `limits` in the `jetstream` \
                      block of the server's configuration.";
        return Finding::warning("consumers", text).advice(advice);
    }
    match leases {
        Some(lease) => {
            let lease = span(Duration::from_nanos(lease));
            let text = format!(
                "There are {there_are}; a job whose worker dies is delivered again after {lease} at most."
            );
            Finding::fine("consumers", text)
        }
        None => Finding::fine("consumers", "No worker has listened to any queue yet."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aioq::broker::Level;

    fn consumer(queue: &str) -> Value {
        let (own, lane) = (Names::new("aioq").unwrap(), Lane::Normal);
        json!({ "name": consumer_name(queue, lane), "config": {
            "filter_subject": own.lane(queue, lane), "ack_policy": "explicit", "max_deliver": -1,
            "ack_wait": 30_000_000_000_u64,
        }})
    }

    fn worst(change: impl FnOnce(&mut Value)) -> Option<Level> {
        let mut consumer = consumer("größe");
        change(&mut consumer);
        judge(&Names::new("aioq").unwrap(), &consumer).into_iter().map(|finding| finding.level).max()
    }

    #[test]
    fn consumers_that_lose_jobs_are_reported() {
        assert_eq!(worst(|_| {}), None);
        assert_eq!(worst(|found| found["config"]["ack_policy"] = "none".into()), Some(Level::Warning));
        assert_eq!(worst(|found| found["config"]["max_deliver"] = 5.into()), Some(Level::Warning));
        assert_eq!(worst(|found| found["config"]["ack_wait"] = 200_000_000.into()), Some(Level::Warning));
        assert_eq!(worst(|found| found["paused"] = true.into()), Some(Level::Warning));
        assert_eq!(worst(|found| found["name"] = "other".into()), Some(Level::Warning));
        assert_eq!(worst(|found| found["config"]["filter_subject"] = Value::Null), Some(Level::Warning));
    }

    #[test]
    fn many_consumers_are_reported_before_there_are_too_many() {
        let many: Vec<Value> = (0..80).map(|n| consumer(&n.to_string())).collect();
        assert_eq!(judge_count(&many, Some(100)).level, Level::Warning);
        assert_eq!(judge_count(&many, Some(101)).level, Level::Fine);
        assert_eq!(judge_count(&many, None).level, Level::Fine);
        assert_eq!(judge_count(&[], None).level, Level::Fine);
    }
}
