//! Results of a rush: [`Figures`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use aioq::store::{JobRecord, Status};

use super::Seen;

/// Results of a rush.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Kicks that were answered.
    pub answered: usize,
    /// Of these, the ones that made a job.
    pub new: usize,
    /// Bodies that were begun.
    pub bodies: usize,
    /// Jobs that ran.
    pub jobs: usize,
    /// Jobs that did not run because their kick came too late, after another one had taken the key
    /// over.
    pub late: usize,
    /// Kickers that were killed.
    pub killed_kickers: usize,
    /// Workers that were killed.
    pub killed_workers: usize,
    /// Kickers that died or froze with the key, before their message was sent.
    pub struck: usize,
    /// Promises that were broken: must be empty.
    pub broken: Vec<String>,
    /// Times of the kicks, sorted.
    took: Vec<Duration>,
    /// Longest time of a kick that found no job.
    longest_lone: Duration,
    lasted: Duration,
}

impl Figures {
    pub(super) fn of(
        seen: &Seen,
        ledger: &[String],
        records: &BTreeMap<String, JobRecord>,
        deadline: Duration,
    ) -> Self {
        let mut took: Vec<_> = seen.answers.iter().map(|answer| answer.took).collect();
        took.sort_unstable();
        let told: Vec<_> = seen.answers.iter().filter_map(|answer| answer.told.as_ref().ok()).collect();
        let late = records.values().filter(|record| is_late(record)).count();
        let mut broken = Vec::new();
        broken.extend(seen.answers.iter().filter_map(|answer| match &answer.told {
            Err(error) => Some(format!("{}: no handle: {error}", answer.line)),
            Ok(_) if answer.took > deadline => Some(format!("{}: took {:?}", answer.line, answer.took)),
            Ok(_) => None,
        }));
        broken.extend(seen.held_by_nobody.iter().map(|line| format!("{line}: held by nobody")));
        broken.extend(two_unfinished(&seen.together, records));
        broken.extend(not_ended(told.iter().map(|(id, _)| id).chain(&seen.told_late), records));
        let (runs, beside) = runs(ledger);
        broken.extend(beside);
        broken.extend(runs.values().filter_map(|run| run.not_to_the_end()));
        Self {
            answered: told.len(),
            new: told.iter().filter(|(_, existing)| !existing).count(),
            bodies: runs.values().map(|run| run.starts).sum(),
            jobs: runs.len(),
            late,
            killed_kickers: seen.killed_kickers,
            killed_workers: seen.killed_workers,
            struck: seen.struck,
            broken,
            took,
            longest_lone: seen.lone.iter().copied().max().unwrap_or_default(),
            lasted: seen.lasted,
        }
    }

    /// True if every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((self.took.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered, new, bodies, jobs, late, killed_kickers, killed_workers, struck, broken, ..
        } = self;
        writeln!(f, "{answered} kicks answered in {:.0?}, {new} with a new job", self.lasted)?;
        let (half, most, longest) = (self.percentile(50), self.percentile(99), self.percentile(100));
        writeln!(f, "a kick took {half:.1?} (median), {most:.1?} (99 of 100), {longest:.2?} at most")?;
        writeln!(f, "a kick that found no job took {:.2?} at most", self.longest_lone)?;
        writeln!(f, "{jobs} jobs ran with {bodies} bodies; {late} were kicked too late and did not run")?;
        writeln!(f, "{killed_kickers} kickers and {killed_workers} workers were killed at any time")?;
        writeln!(f, "{struck} kickers died or froze with the key, before their message was sent")?;
        writeln!(f, "{} promises were broken", broken.len())?;
        broken.iter().take(20).try_for_each(|what| writeln!(f, "  {what}"))
    }
}

/// True for a job whose key another one had taken over.
fn is_late(record: &JobRecord) -> bool {
    let is_unique = record.error.as_ref().is_some_and(|error| error.exc_type == "Unique");
    record.status == Status::Cancelled && is_unique
}

/// Pairs of jobs that were unfinished at the same time, without those whose kick came too late.
fn two_unfinished(
    together: &BTreeSet<BTreeSet<String>>,
    records: &BTreeMap<String, JobRecord>,
) -> Vec<String> {
    let is_late = |id: &&String| records.get(*id).is_some_and(is_late);
    let held = together.iter().map(|ids| ids.iter().filter(|id| !is_late(id)).collect::<Vec<_>>());
    held.filter(|ids| ids.len() > 1).map(|ids| format!("unfinished at the same time: {ids:?}")).collect()
}

/// Jobs that a kick was told of and that have not ended as they should.
fn not_ended<'a>(
    told: impl Iterator<Item = &'a String>,
    records: &BTreeMap<String, JobRecord>,
) -> Vec<String> {
    let ids: BTreeSet<_> = told.collect();
    let has_ended = |id: &str| {
        records.get(id).is_some_and(|record| record.status == Status::Completed || is_late(record))
    };
    let not_ended = ids.into_iter().filter(|id| !has_ended(id));
    not_ended.map(|id| format!("{id}: {:?}", records.get(id).map(|record| record.status))).collect()
}

/// The run of a job, according to the ledger.
struct Run {
    line: String,
    starts: usize,
    ends: usize,
}

impl Run {
    fn not_to_the_end(&self) -> Option<String> {
        (self.ends == 0).then(|| format!("{}: begun {} times, and never ended", self.line, self.starts))
    }
}

/// The runs of all jobs, and the jobs that ran beside another one.
///
/// A job is unfinished from its first body to its last. So its lines in the ledger follow each
/// other, without a line of another job in between.
fn runs(ledger: &[String]) -> (HashMap<&str, Run>, Vec<String>) {
    let (mut runs, mut beside) = (HashMap::<&str, Run>::new(), Vec::new());
    let mut current = "";
    for text in ledger {
        let (what, line) = text.split_once(' ').unwrap_or_default();
        if line != current && runs.contains_key(line) {
            beside.push(format!("{current} ran while {line} was unfinished"));
        }
        current = line;
        let run = runs.entry(line).or_insert_with(|| Run { line: line.to_owned(), starts: 0, ends: 0 });
        match what {
            "start" => run.starts += 1,
            _ => run.ends += 1,
        }
    }
    (runs, beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(text: &str) -> (Vec<String>, Vec<String>) {
        let lines: Vec<_> = text.split(", ").map(str::to_owned).collect();
        let (runs, beside) = runs(&lines);
        (beside, runs.values().filter_map(Run::not_to_the_end).collect())
    }

    #[test]
    fn lines_of_two_jobs_in_turn_are_seen() {
        let kept = ledger("start a, start a, end a, start b, end b, start b, end b");
        assert_eq!(kept, (vec![], vec![]));
        let (beside, _) = ledger("start a, start b, end a, end b");
        assert_eq!(beside, ["b ran while a was unfinished", "a ran while b was unfinished"]);
        let (beside, unended) = ledger("start a, start b, end b");
        assert_eq!((beside.len(), unended.len()), (0, 1));
    }
}
