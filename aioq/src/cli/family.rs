//! The jobs around a job, for people: its parents and children in a line, a tree of all.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::client::Client;
use crate::error::Result;
use crate::jobs::{JobTree, TreeJob};
use crate::message::JobId;
use crate::store::JobRecord;

/// Number of jobs that are named.
const NAMED: usize = 20;

/// The parents and the children of a job, the first of each.
#[derive(Debug, Default, Serialize)]
pub(super) struct Relatives {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parents: Vec<TreeJob>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<TreeJob>,
    /// Number of all parents.
    #[serde(skip)]
    all_parents: usize,
    /// Number of all children.
    #[serde(skip_serializing_if = "is_zero", rename = "children_total")]
    all_children: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Relatives {
    /// Looks them up.
    pub(super) async fn of(client: &Client, record: &JobRecord) -> Result<Self> {
        let jobs = client.jobs();
        let children = jobs.children(&record.id).await?;
        let first = |ids: &[JobId]| ids.iter().take(NAMED).cloned().collect::<Vec<_>>();
        Ok(Self {
            parents: jobs.look_up(&first(&record.depends_on)).await?,
            children: jobs.look_up(&first(&children)).await?,
            all_parents: record.depends_on.len(),
            all_children: children.len(),
        })
    }

    /// The jobs that the job waits for, or waited for.
    pub(super) fn parents(&self) -> Option<String> {
        named(&self.parents, self.all_parents)
    }

    /// The jobs that wait for the job, or have failed for it.
    pub(super) fn children(&self) -> Option<String> {
        named(&self.children, self.all_children)
    }
}

fn named(jobs: &[TreeJob], all: usize) -> Option<String> {
    let mut names: Vec<String> = jobs.iter().map(|job| format!("{} ({})", job.id, status(job))).collect();
    if all > jobs.len() {
        names.push(format!("and {} more", all - jobs.len()));
    }
    (!names.is_empty()).then(|| names.join(", "))
}

fn status(job: &TreeJob) -> &'static str {
    job.status.map_or("unknown", |status| status.as_str())
}

/// A tree in lines: each job below the first of its parents, and again, without what follows, below
/// the others.
pub(super) fn lines(tree: &JobTree) -> Vec<String> {
    let known: HashSet<&JobId> = tree.jobs.iter().map(|job| &job.id).collect();
    let mut children: HashMap<&JobId, Vec<&TreeJob>> = HashMap::new();
    for job in &tree.jobs {
        for parent in &job.depends_on {
            children.entry(parent).or_default().push(job);
        }
    }
    let is_root = |job: &&TreeJob| !job.depends_on.iter().any(|parent| known.contains(parent));
    let mut open: Vec<(usize, &TreeJob)> = tree.jobs.iter().filter(is_root).map(|job| (0, job)).collect();
    open.reverse();
    let (mut lines, mut shown) = (Vec::new(), HashSet::new());
    while let Some((depth, job)) = open.pop() {
        let is_first = shown.insert(&job.id);
        let task = job.task.as_deref().unwrap_or("?");
        let again = if is_first { "" } else { "  (see above)" };
        lines.push(format!("{}{}  {task}  {}{again}", "  ".repeat(depth), job.id, status(job)));
        if is_first {
            let next = children.get(&job.id).into_iter().flatten().rev();
            open.extend(next.map(|child| (depth + 1, *child)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Status;

    #[test]
    fn a_diamond_is_a_tree_in_which_the_last_job_comes_twice() {
        let job = |id: &str, parents: &[&str], status: Option<Status>| TreeJob {
            id: id.into(),
            task: status.map(|_| "t".into()),
            status,
            depends_on: parents.iter().map(|id| JobId::from(*id)).collect(),
        };
        let jobs = vec![
            job("gone", &[], None),
            job("a", &["gone"], Some(Status::Completed)),
            job("b", &["a"], Some(Status::Running)),
            job("c", &["a"], Some(Status::Failed)),
            job("d", &["b", "c"], Some(Status::Blocked)),
        ];
        let expected = [
            "gone  ?  unknown",
            "  a  t  completed",
            "    b  t  running",
            "      d  t  blocked",
            "    c  t  failed",
            "      d  t  blocked  (see above)",
        ];
        assert_eq!(lines(&JobTree { jobs, is_cut: false }), expected);
    }
}
