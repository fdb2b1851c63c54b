//! What must be true of debounced jobs: of all triggers of a burst, the last one runs, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aioq::JobId;
use aioq::store::Status;
use aioq_tests::faults::{Fact, Journal};

use super::kickers::Kick;
use super::tasks::{self, Key, MAX, PAUSE};
use crate::bodies::Run;

/// Time from the moment at which a job is due to its start, if nothing is in the way: other jobs of
/// the worker may run, and a worker puts a job off by up to a second less than it should.
const DELIVERY: Duration = Duration::from_secs(5);
/// The same after faults.
const RECOVERY: Duration = Duration::from_secs(60);

/// The triggers of one job.
#[derive(Default)]
struct Burst {
    key: Option<Key>,
    /// Numbers of the kicks in the order in which they came into the entry, and when.
    triggers: Vec<(usize, Duration)>,
    /// Time at which the ticket was first in the broker.
    ticket: Option<Duration>,
    /// Numbers of the kicks whose arguments were run, and when.
    runs: Vec<(usize, Duration)>,
    ends: Vec<Status>,
    /// True if a client asked to cancel or rerun the job.
    steered: bool,
}

/// What is wrong with the jobs of the keys.
pub(super) fn check(
    kicks: &[Kick],
    runs: &[Run],
    journal: &Journal,
    clocks_apart: u64,
    is_calm: bool,
) -> Vec<String> {
    let (mut wrong, lines) = (Vec::new(), journal.lines());
    let mut bursts = BTreeMap::<JobId, Burst>::new();
    // The job of the newest burst of each key, and all jobs that another one has come after.
    let (mut newest, mut followed) = (BTreeMap::<Key, JobId>::new(), BTreeSet::<JobId>::new());
    let (mut arrived, mut faults_until) = (BTreeMap::<usize, JobId>::new(), Duration::ZERO);
    for line in lines.iter() {
        match &line.fact {
            Fact::Wrote(_, entry) => {
                let Some(kick) = tasks::kick_in(entry) else { continue };
                let Some(id) = tasks::job_in(entry) else { continue };
                if arrived.insert(kick, id.clone()).is_some() {
                    // The worker closes the entry, or a kick frees it.
                    continue;
                }
                let burst = bursts.entry(id.clone()).or_default();
                burst.key = Some(kicks[kick].key);
                burst.triggers.push((kick, line.at));
                let before = newest.insert(kicks[kick].key, id.clone());
                followed.extend(before.filter(|before| *before != id));
            }
            Fact::Kicked { id, .. } => {
                bursts.entry(id.clone()).or_default().ticket.get_or_insert(line.at);
            }
            Fact::Started(run, id, _) => {
                bursts.entry(id.clone()).or_default().runs.push((runs[*run].argument, line.at));
            }
            Fact::Put(record, _) if record.status.is_terminal() => {
                bursts.entry(record.id.clone()).or_default().ends.push(record.status);
            }
            Fact::Asked(_, _, id) => bursts.entry(id.clone()).or_default().steered = true,
            Fact::Note(text) if text == "the faults end" => faults_until = line.at,
            _ => {}
        }
    }
    for (number, kick) in kicks.iter().enumerate() {
        let Some(answer) = &kick.answer else { continue };
        if arrived.get(&number) != Some(&answer.id) {
            wrong.push(format!(
                "trigger {number} was answered with {} and went to {:?}",
                answer.id,
                arrived.get(&number)
            ));
        }
    }
    for (id, burst) in &bursts {
        let is_confirmed = burst.triggers.iter().any(|(kick, _)| kicks[*kick].answer.is_some());
        wrong.extend(burst.check(is_confirmed, followed.contains(id)).map(|wrong| format!("{id} {wrong}")));
        let slack = Duration::from_millis(2 * clocks_apart) + if is_calm { DELIVERY } else { RECOVERY };
        wrong.extend(burst.check_time(faults_until, slack, is_calm).map(|wrong| format!("{id} {wrong}")));
    }
    wrong
}

impl Burst {
    /// `is_followed` is true if another job has the key since.
    fn check(&self, is_confirmed: bool, is_followed: bool) -> Option<String> {
        let Some((last, _)) = self.triggers.last() else { return Some("runs without a trigger".to_owned()) };
        let Self { runs, ends, triggers, .. } = self;
        if self.steered {
            // A rerun is of the arguments of the message, whichever that was.
            return None;
        }
        if let Some((other, _)) = runs.iter().find(|(kick, _)| kick != last) {
            return Some(format!(
                "ran with the arguments of trigger {other}, not of the last of {triggers:?}"
            ));
        }
        match ends[..] {
            [Status::Completed | Status::Failed] if !runs.is_empty() => None,
            // Its key was taken, by a trigger that is newer.
            [Status::Cancelled] if runs.is_empty() && is_followed => None,
            [] if !is_confirmed => None,
            _ => Some(format!("has the runs {runs:?} and the ends {ends:?}, of {triggers:?}")),
        }
    }

    /// The time of the first run.
    fn check_time(&self, faults_until: Duration, slack: Duration, is_calm: bool) -> Option<String> {
        let ((_, first), (_, last)) = (self.triggers.first()?, self.triggers.last()?);
        let ((_, begun), ticket) = (self.runs.first()?, self.ticket?);
        let most = if self.key?.has_max() { *first + MAX } else { Duration::MAX };
        let due = (*last + PAUSE).min(most);
        if *begun > due.max(ticket).max(faults_until) + slack {
            return Some(format!("was due at {due:?} and began at {begun:?}, of {:?}", self.triggers));
        }
        if is_calm && *begun + slack < due {
            return Some(format!(
                "was due at {due:?} and began at {begun:?} already, of {:?}",
                self.triggers
            ));
        }
        None
    }
}
