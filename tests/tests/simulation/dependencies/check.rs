//! What must be true of jobs that wait for others, once all is at rest.

use std::collections::{BTreeMap, HashMap};

use aioq::error::Reason;
use aioq::prelude::*;
use aioq::store::JobRecord;
use aioq::tasks::OnParentFailure;
use aioq::{ErrorKind, JobId};
use aioq_tests::faults::Fact;

use super::graph::{Graph, Node};
use crate::crew::Crew;

pub(super) async fn check(graph: &Graph, crew: &Crew) -> Vec<String> {
    let nodes = graph.nodes();
    let mut records = BTreeMap::new();
    let mut wrong = Vec::new();
    for id in nodes.keys() {
        match crew.client.jobs().get(id).await {
            Ok(record) => drop(records.insert(id.clone(), record)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => wrong.push(format!("{id}: {error}")),
        }
    }
    for (id, node) in &nodes {
        match records.get(id) {
            Some(record) => wrong.extend(wrong_end(id, node, record, &records, &nodes)),
            None if node.confirmed && !node.removed => wrong.push(format!("{id} was confirmed and is gone")),
            None => {}
        }
    }
    wrong.extend(started_too_early(&nodes, crew));
    wrong.extend(begun_unknown(&graph.flows(), crew));
    wrong.extend(wrong_results(&nodes, &records, crew));
    wrong.extend(edges_left(&records, crew).await);
    wrong
}

/// A job ends as its parents let it.
fn wrong_end(
    id: &JobId,
    node: &Node,
    record: &JobRecord,
    records: &BTreeMap<JobId, JobRecord>,
    nodes: &BTreeMap<JobId, Node>,
) -> Option<String> {
    let status = |parent: &JobId| records.get(parent).map(|record| record.status);
    let all_completed = node.parents.iter().all(|parent| status(parent) == Some(Status::Completed));
    // A parent that was removed may have completed before, or not.
    let is_sure = node.parents.iter().all(|parent| nodes.get(parent).is_some_and(|node| !node.removed));
    let waits_for_blocked = node.parents.iter().any(|parent| status(parent) == Some(Status::Blocked));
    let failed_for_parent = record.reason == Some(Reason::Dependency);
    let why = match record.status {
        // One of its parents may itself wait for a parent that has failed.
        Status::Blocked if !waits_for_blocked && node.on_failure != OnParentFailure::Wait => {
            "is still blocked"
        }
        Status::Blocked if all_completed => "is blocked although its parents have completed",
        status if status != Status::Blocked && !status.is_terminal() => "has not ended",
        _ if failed_for_parent && all_completed => "failed for a parent although all have completed",
        _ if failed_for_parent && node.on_failure == OnParentFailure::Run && is_sure => {
            "failed for a parent although it was to run"
        }
        Status::Completed if !all_completed && is_sure && node.on_failure == OnParentFailure::Fail => {
            "completed although a parent has not"
        }
        _ => return None,
    };
    let parents: Vec<String> = node.parents.iter().map(|id| format!("{id} {:?}", status(id))).collect();
    Some(format!("{id} {why}: it is {}, {parents:?}", record.status))
}

/// No body starts before the parents of its job have completed, unless they count as completed.
fn started_too_early(nodes: &BTreeMap<JobId, Node>, crew: &Crew) -> Vec<String> {
    let (runs, mut wrong) = (crew.stage.runs(), Vec::new());
    let mut ended_well: HashMap<JobId, usize> = HashMap::new();
    for (place, line) in crew.faults.journal().lines().iter().enumerate() {
        match &line.fact {
            Fact::Ended(run, end) if end == "Well" => {
                ended_well.entry(runs[*run].id.clone()).or_insert(place);
            }
            Fact::Started(run, id, _) => {
                let Some(node) = nodes.get(id) else { continue };
                if node.on_failure == OnParentFailure::Run {
                    continue;
                }
                let early = node.parents.iter().find(|parent| !ended_well.contains_key(*parent));
                wrong.extend(
                    early.map(|parent| format!("run {run} of {id} started before {parent} had ended")),
                );
            }
            _ => {}
        }
    }
    wrong
}

/// A job takes the result that its parent has in its record.
fn wrong_results(
    nodes: &BTreeMap<JobId, Node>,
    records: &BTreeMap<JobId, JobRecord>,
    crew: &Crew,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for run in crew.stage.runs() {
        let Some(node) = nodes.get(&run.id).filter(|node| node.takes) else { continue };
        let parent = &node.parents[0];
        let result = records.get(parent).and_then(|record| record.result.as_ref());
        let result = result.map(|result| result.decode::<usize>().unwrap());
        if result.is_some_and(|result| result != run.argument) {
            wrong.push(format!("{} took {} of {parent}, whose result is {result:?}", run.id, run.argument));
        }
    }
    wrong
}

/// The first job of a flow is kicked once all others are recorded: a kick that fails before leaves
/// no job that runs.
fn begun_unknown(flows: &[Vec<JobId>], crew: &Crew) -> Vec<String> {
    let lines = crew.faults.journal().lines();
    let (mut first_record, mut first_message) = (HashMap::new(), HashMap::new());
    for (place, line) in lines.iter().enumerate() {
        match &line.fact {
            Fact::Put(record, _) => drop(first_record.entry(record.id.clone()).or_insert(place)),
            Fact::Kicked { id, new: true, .. } => drop(first_message.entry(id.clone()).or_insert(place)),
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    for (root, others) in flows.iter().filter_map(|flow| flow.split_first()) {
        let Some(begun) = first_message.get(root) else { continue };
        let unknown = others.iter().find(|id| first_record.get(*id).is_none_or(|recorded| recorded > begun));
        wrong.extend(unknown.map(|id| format!("{root} was kicked before {id} of its flow was recorded")));
    }
    wrong
}

/// No edge is left of a job that has started.
async fn edges_left(records: &BTreeMap<JobId, JobRecord>, crew: &Crew) -> Vec<String> {
    let edges = crew.backend.kv().scan("after.").await.unwrap();
    let edges = edges.into_iter().filter(|edge| !edge.value.is_empty());
    let child = |key: &str| JobId::from(key.rsplit('.').next().unwrap_or_default());
    let started = |id: &JobId| records.get(id).is_some_and(|record| record.started_at.is_some());
    edges
        .filter(|edge| started(&child(&edge.key)))
        .map(|edge| format!("an edge is left of a job that has started: {}", edge.key))
        .collect()
}
