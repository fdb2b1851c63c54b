//! What must be true of unique jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aioq::JobId;
use aioq::store::Status;
use aioq_tests::faults::{Fact, Journal, Line};

use super::kickers::{Answer, Kick};
use super::tasks::{self, Key};
use crate::bodies::Run;

/// A job between two ends.
#[derive(Default)]
struct Job {
    /// The ends and the reruns, each with its line of the journal.
    turns: Vec<(usize, Status)>,
    /// Line of the first record that says that it runs. A job that frees its key at the start does
    /// so then.
    claimed: Option<usize>,
    /// True if a client asked to cancel it.
    steered: bool,
}

impl Job {
    fn has_ended(&self) -> bool {
        self.turns.last().is_some_and(|(_, status)| status.is_terminal())
    }

    /// The last turn before that line.
    fn before(&self, line: usize) -> Option<(usize, Status)> {
        self.turns.iter().rfind(|(place, _)| *place < line).copied()
    }

    fn is_rerun_in(&self, lines: std::ops::Range<usize>) -> bool {
        self.turns.iter().any(|(place, status)| lines.contains(place) && !status.is_terminal())
    }
}

/// What is wrong with the jobs of the keys.
pub(super) fn check(kicks: &[Kick], runs: &[Run], journal: &Journal, clocks_apart: u64) -> Vec<String> {
    let (mut wrong, lines) = (Vec::new(), journal.lines());
    let mut jobs = BTreeMap::<&JobId, Job>::new();
    // Jobs between their first start and their end.
    let mut begun = BTreeMap::<Key, BTreeSet<&JobId>>::new();
    for (place, line) in lines.iter().enumerate() {
        match &line.fact {
            Fact::Started(run, id, _) => {
                let key = kicks[runs[*run].argument].key;
                let job = jobs.entry(id).or_default();
                if !job.has_ended() && !key.is_freed_at_start() {
                    let running = begun.entry(key).or_default();
                    running.insert(id);
                    if running.len() > 1 {
                        wrong.push(format!("{running:?} of key {key} have begun"));
                    }
                }
            }
            Fact::Put(record, _) if record.status.is_terminal() => {
                jobs.entry(&record.id).or_default().turns.push((place, record.status));
                begun.values_mut().for_each(|running| running.retain(|id| **id != record.id));
            }
            Fact::Put(record, _) if record.status == Status::Running => {
                jobs.entry(&record.id).or_default().claimed.get_or_insert(place);
            }
            Fact::Asked(_, _, id) => jobs.entry(id).or_default().steered = true,
            Fact::Kicked { id, supersedes: Some(1..), new: true, .. } => {
                jobs.entry(id).or_default().turns.push((place, Status::Pending));
            }
            _ => {}
        }
    }
    for (id, job) in &jobs {
        let (end, status) = job.turns.first().copied().unwrap_or((0, Status::Pending));
        if status == Status::Cancelled && !job.steered && job.claimed.is_some_and(|claimed| claimed < end) {
            wrong.push(format!("{id} had begun and was cancelled"));
        }
    }
    let slack = Duration::from_millis(2 * clocks_apart) + Duration::from_secs(10);
    let none = Job::default();
    for (kick, Answer { id, existing, at }) in
        kicks.iter().filter_map(|kick| Some((kick, kick.answer.as_ref()?)))
    {
        let job = jobs.get(id).unwrap_or(&none);
        if !existing {
            wrong.extend(taken_from(kick, *at, kicks, &jobs, &lines));
            continue;
        }
        let Some((place, status)) = job.before(kick.begun).filter(|(_, status)| status.is_terminal()) else {
            continue;
        };
        let in_window = kick.key.has_window()
            && status == Status::Completed
            && lines[kick.begun.min(lines.len() - 1)].at <= lines[place].at + slack;
        if !in_window && !job.is_rerun_in(kick.begun..*at) {
            wrong.push(format!("a kick was answered with {id}, which was {status} before"));
        }
    }
    wrong
}

/// The job that had the key during all of a kick that made a new one, if any.
///
/// A job that is cancelled in the end may have lost its key to another kick before.
fn taken_from(
    kick: &Kick,
    answered: usize,
    kicks: &[Kick],
    jobs: &BTreeMap<&JobId, Job>,
    lines: &[Line],
) -> Option<String> {
    let has_key = |id: &JobId| {
        let Some(job) = jobs.get(id) else { return true };
        let (end, status) = job.turns.first().copied().unwrap_or((usize::MAX, Status::Pending));
        let freed = job.claimed.filter(|_| kick.key.is_freed_at_start()).unwrap_or(usize::MAX);
        status != Status::Cancelled && answered < end.min(freed)
    };
    let others = kicks.iter().filter(|other| other.key == kick.key);
    let mut earlier = others.filter_map(|other| other.answer.as_ref());
    let had = earlier.find(|had| {
        !had.existing && had.at <= kick.begun && has_key(&had.id) && is_named(&had.id, &lines[..had.at])
    })?;
    Some(format!("a kick made a new job while {} had the key", had.id))
}

/// True if a job was kicked in time: by then, no other kick had taken its entry over, or doubted it
/// and may have asked for it too early.
fn is_named(id: &JobId, lines: &[Line]) -> bool {
    let entries = || {
        lines.iter().rev().filter_map(|line| match &line.fact {
            Fact::Wrote(key, entry) => Some((key, entry)),
            _ => None,
        })
    };
    let names = |entry: &[u8]| tasks::job_in(entry).as_ref() == Some(id);
    let Some((key, _)) = entries().find(|(_, entry)| names(entry)) else { return false };
    let newest = entries().find(|(other, _)| *other == key);
    newest.is_some_and(|(_, entry)| names(entry) && !tasks::is_contested(entry))
}
