//! Rules for every journal.

use std::collections::{BTreeMap, BTreeSet};

use aioq::error::Reason;
use aioq::message::Name;
use aioq::store::{JobRecord, Status};
use aioq::{JobId, Timestamp};
use aioq_tests::faults::{Fact, Journal, Request};

use crate::bodies::{End, Kind, RETRIES, Run};
use crate::clients::Job;
use crate::workers::MAX_CRASHES;

/// A job as the journal tells it.
#[derive(Default)]
struct Told {
    /// True if a message of it was ever in the broker.
    kicked: bool,
    /// Number of times that it was run again on demand, or kicked anew after it was removed.
    again: usize,
    /// The kick that its records are of.
    kicked_at: Option<Timestamp>,
    /// The kicks before that.
    past: BTreeSet<Option<Timestamp>>,
    /// Kicks that came while the job existed: nobody runs them, unless it is removed before they
    /// are seen.
    doubles: BTreeSet<Option<Timestamp>>,
    /// It was removed, and not kicked since.
    removed: bool,
    /// The record that says so.
    removed_at: Option<u64>,
    /// Number of times that it was run again on demand.
    retries: usize,
    /// Number of times that a client was told that it is run again.
    retried: usize,
    /// Kicks that came after a record which was not the newest any more.
    stale: usize,
    /// The record of its end.
    ended: Option<(u64, Status)>,
    /// Nobody may start it any more.
    called_off: bool,
    /// Runs since it was run again the last time.
    runs: Vec<usize>,
    /// The starts that were recorded: in which attempt, by whom, the how manieth.
    claims: BTreeSet<(u32, Option<Name>, u32)>,
    /// Recorded attempts.
    outcomes: BTreeMap<(usize, u32), Vec<Status>>,
}

impl Told {
    /// It is run again, or anew.
    fn live_again(&mut self, kicked_at: Option<Timestamp>) {
        self.again += 1;
        self.past.insert(std::mem::replace(&mut self.kicked_at, kicked_at));
        (self.ended, self.called_off, self.removed) = (None, false, false);
        self.runs.clear();
        self.claims.clear();
    }
}

struct Checker<'a> {
    jobs: BTreeMap<JobId, Told>,
    runs: &'a [Run],
    /// The requests under way: what, of which job, and how often that had been run again.
    asked: BTreeMap<usize, (Request, JobId, usize)>,
    wrong: Vec<String>,
}

/// Mistakes.
pub(crate) fn check(
    jobs: &BTreeMap<JobId, Job>,
    records: &[(JobId, Option<JobRecord>)],
    runs: &[Run],
    journal: &Journal,
) -> Vec<String> {
    let mut checker = Checker { jobs: BTreeMap::new(), runs, asked: BTreeMap::new(), wrong: Vec::new() };
    for line in &*journal.lines() {
        checker.hear(&line.fact);
    }
    for (id, record) in records {
        checker.check_end(id, &jobs[id], record.as_ref());
    }
    checker.wrong
}

impl Checker<'_> {
    fn hear(&mut self, fact: &Fact) {
        match fact {
            Fact::Kicked { id, supersedes, kicked_at, new: true } => {
                self.kicked(id, supersedes.unwrap_or(0), *kicked_at);
            }
            Fact::Put(record, revision) if record.is_removed() => self.taken(record, *revision),
            Fact::Removed(id) => self.removed(id, None),
            Fact::Put(record, revision) => self.put(record, *revision),
            Fact::Started(run, id, attempt) => self.started(*run, id, *attempt),
            Fact::Asked(number, request, id) => {
                let again = self.job(id).again;
                self.asked.insert(*number, (*request, id.clone(), again));
            }
            Fact::Answered(number, Some(true)) => self.granted(*number),
            _ => {}
        }
    }

    fn job(&mut self, id: &JobId) -> &mut Told {
        self.jobs.entry(id.clone()).or_default()
    }

    fn removed(&mut self, id: &JobId, revision: Option<u64>) {
        let job = self.job(id);
        (job.removed, job.removed_at) = (true, revision);
    }

    /// A record is removed, and its place stays taken.
    fn taken(&mut self, record: &JobRecord, revision: u64) {
        let job = self.job(&record.id);
        if job.past.contains(&record.kicked_at) {
            // Of the run before: a retry came between the look and the removal, and its message may
            // run.
            job.removed_at = Some(revision);
        } else {
            self.removed(&record.id, Some(revision));
        }
    }

    fn kicked(&mut self, id: &JobId, supersedes: u64, kicked_at: Option<Timestamp>) {
        let job = self.job(id);
        let first = !std::mem::replace(&mut job.kicked, true);
        let follows = job.ended.is_some_and(|(revision, _)| revision == supersedes);
        if job.past.contains(&kicked_at) || (job.kicked_at == kicked_at && !first) {
            // The echo of a kick.
        } else if first {
            job.kicked_at = kicked_at;
        } else if job.removed || follows {
            // A retry that looked before the job was removed may come after.
            job.retries += usize::from(supersedes > 0 && job.removed_at != Some(supersedes));
            job.live_again(kicked_at);
        } else if supersedes > 0 {
            // One that comes after an older record must not run.
            job.stale += 1;
        } else {
            job.doubles.insert(kicked_at);
        }
    }

    fn put(&mut self, record: &JobRecord, revision: u64) {
        let (id, status, attempt) = (&record.id, record.status, record.attempt);
        let job = self.job(id);
        if job.removed && job.doubles.remove(&record.kicked_at) {
            job.live_again(record.kicked_at);
        }
        let again = job.again;
        if job.removed || job.kicked_at != record.kicked_at {
            let what = if job.removed { "was removed" } else { "was kicked anew" };
            self.wrong
                .push(format!("{id} {what} and became {status} at {revision}, as it was kicked before"));
            return;
        }
        if let Some((at, last)) = job.ended {
            self.wrong.push(format!("{id} was {last} at revision {at} and became {status} at {revision}"));
            return;
        }
        let outcome = matches!(status, Status::Completed | Status::Failed | Status::Retrying);
        if outcome {
            job.outcomes.entry((again, attempt)).or_default().push(status);
        }
        if status == Status::Running {
            job.claims.insert((attempt, record.worker_id.clone(), record.starts));
        }
        if status.is_terminal() {
            job.ended = Some((revision, status));
        }
        if attempt > RETRIES + 1 || (status == Status::Retrying && attempt > RETRIES) {
            self.wrong.push(format!("{id} is {status} after attempt {attempt}, which is too many"));
        }
        match (status, record.reason) {
            (Status::Completed, _) => self.check_result(record),
            (Status::Failed, Some(Reason::Poison)) => self.check_poison(record),
            (Status::Failed, _) => self.check_failure(record),
            _ => {}
        }
    }

    /// A result is that of a run which came to that end, and which the last retry started.
    fn check_result(&mut self, record: &JobRecord) {
        let id = &record.id;
        let Some(Ok(run)) = record.result.as_ref().map(|result| result.decode::<usize>()) else {
            self.wrong.push(format!("{id} completed without a result"));
            return;
        };
        let its = &self.runs[run];
        if its.id != *id || its.attempt != record.attempt || its.end != Some(End::Well) {
            self.wrong.push(format!("{id} has the result of run {run}, which is {its:?}"));
        }
        if !self.job(id).runs.contains(&run) {
            self.wrong.push(format!("{id} has the result of run {run}, from before it was run again"));
        }
    }

    fn check_failure(&mut self, record: &JobRecord) {
        let (id, runs) = (&record.id, self.runs);
        let attempt = record.attempt;
        let failed = |run: &usize| runs[*run].attempt == attempt && runs[*run].end == Some(End::Badly);
        if attempt != RETRIES + 1 || !self.job(id).runs.iter().any(failed) {
            self.wrong.push(format!("{id} failed in attempt {attempt}, although no run says so"));
        }
    }

    /// Each of its starts was one, but for the first, which may have left no trace. Whoever has
    /// claimed a job and was not told so in time has started it, too.
    fn check_poison(&mut self, record: &JobRecord) {
        let (id, runs) = (&record.id, self.runs);
        let attempt = record.attempt;
        let job = self.job(id);
        let claims = job.claims.iter().filter(|claim| claim.0 == attempt).count();
        let starts = job.runs.iter().filter(|run| runs[**run].attempt == attempt).count().max(claims);
        if starts + 1 < MAX_CRASHES as usize {
            self.wrong.push(format!("{id} is poison after {starts} starts of attempt {attempt}"));
        }
    }

    fn started(&mut self, run: usize, id: &JobId, attempt: u32) {
        let job = self.job(id);
        job.runs.push(run);
        let called_off = job.called_off;
        if called_off && self.job(id).doubles.is_empty() {
            self.wrong.push(format!("{id} was called off and runs, run {run}"));
        }
        if attempt > RETRIES + 1 {
            self.wrong.push(format!("{id} runs for the {attempt}th time"));
        }
    }

    fn granted(&mut self, number: usize) {
        let Some((request, id, again)) = self.asked.remove(&number) else { return };
        let job = self.job(&id);
        match request {
            Request::Cancel | Request::Abort if job.again == again => job.called_off = true,
            Request::Retry => job.retried += 1,
            _ => {}
        }
    }

    fn check_end(&mut self, id: &JobId, asked: &Job, record: Option<&JobRecord>) {
        let told = self.jobs.remove(id).unwrap_or_default();
        let status = record.map(|record| record.status);
        let ended = told.ended.map(|(_, status)| status).filter(|_| !told.removed);
        if status.is_none() && !told.removed && (asked.confirmed || told.kicked) {
            self.wrong.push(format!("{id} was kicked and is lost"));
        }
        if status != ended {
            self.wrong.push(format!("{id} is {status:?} and ended as {:?}", told.ended));
        }
        // A client that kicks a stale message cannot know.
        if told.retried > told.retries + told.stale {
            self.wrong
                .push(format!("{id} was retried {} times and ran again {}", told.retried, told.retries));
        }
        for ((_, attempt), outcomes) in &told.outcomes {
            if outcomes.len() > 1 {
                self.wrong.push(format!("attempt {attempt} of {id} has the outcomes {outcomes:?}"));
            }
        }
        if Kind::number(asked.kind) == Kind::Fails && status == Some(Status::Completed) {
            self.wrong.push(format!("{id} always fails and completed"));
        }
    }
}
