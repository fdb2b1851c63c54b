//! Several clients at once, while a worker is replaced. What each job comes to depends on who is
//! faster; what is checked here holds whoever is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::jobs::JobFilter;
use aioq::prelude::*;
use aioq::store::{JobRecord, Status};
use aioq::worker::WorkerOptions;
use aioq::{ErrorKind, JobId, Result, Timestamp};
use aioq_tests::Bed;
use tokio::time::{Instant, sleep};

use crate::bodies::{End, Run, Stage, held};
use crate::look::{QUEUE, check_nothing_waits, listed, watched};
use crate::op::{How, IDS, Op};
use crate::worker::Live;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time is real here: delays are this much shorter.
const HASTE: u32 = 500;
/// No lease runs out here.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// Effect of a request on one job.
struct Deed {
    id: JobId,
    what: What,
    begun: Instant,
    returned: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Kicked or retried: it may run from now on.
    Launched,
    /// Or removed after its end.
    CalledOff,
    /// Gone with others.
    Dropped,
}

/// Requests of all clients.
type Deeds = Arc<Mutex<Vec<Deed>>>;

/// Lets each client do its operations, all at once; then lets everything come to rest, and checks.
pub(crate) async fn run(bed: Bed, clients: Vec<Vec<Op>>, ends: Vec<How>) {
    let (stage, deeds) = (Stage::of_itself(ends), Deeds::default());
    // Few at a time, so that workers hold jobs that have not started.
    let options = || WorkerOptions::new().concurrency(2);
    let start = async || Live::start(bed.app().state(stage.clone()), ACK_WAIT, options()).await;
    let witness = bed.client().await;
    let records = watched(&witness).await;
    let (first, second) = (start().await, start().await);
    let mut racing = tokio::task::JoinSet::new();
    for ops in clients {
        let racer = Racer { client: bed.client().await, deeds: Arc::clone(&deeds) };
        racing.spawn(async move {
            for op in &ops {
                racer.step(op).await;
            }
        });
    }
    let (third, ()) = tokio::join!(start(), first.stop());
    while let Some(raced) = racing.join_next().await {
        raced.unwrap();
    }
    witness.queues().resume(QUEUE).await.unwrap();
    let at_rest = tokio::time::timeout(PATIENCE, until_at_rest(&witness)).await;
    second.stop().await;
    third.stop().await;
    let listed_jobs = listed(&witness).await;
    assert!(at_rest.is_ok(), "not at rest: {listed_jobs:?}");
    check_nothing_waits(&witness).await;

    check_deeds(&deeds.lock().unwrap(), &stage.runs());
    check_records(&records.lock().unwrap(), &stage.runs());
    for id in listed_jobs.keys().cloned().chain(IDS.map(JobId::from)) {
        let stored = witness.jobs().stored(&id).await.unwrap().map(|stored| stored.record.status);
        assert_eq!(stored.as_ref(), listed_jobs.get(&id), "the record of {id}, as stored and as listed");
    }
}

/// Waits until every job has ended, and is gone from the broker.
async fn until_at_rest(client: &Client) {
    loop {
        let jobs = client.jobs().list(JobFilter::new(), 1_000).await.unwrap().jobs;
        let depth = client.queues().depths(&[QUEUE.to_owned()]).await.unwrap().remove(0);
        let waiting = depth.ready + depth.held + depth.scheduled + depth.retrying;
        if waiting == 0 && jobs.iter().all(|job| job.status.is_terminal()) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A client that notes what it does.
struct Racer {
    client: Client,
    deeds: Deeds,
}

impl Racer {
    async fn step(&self, op: &Op) {
        let jobs = self.client.jobs();
        let begun = Instant::now();
        let id = |number: usize| JobId::from(IDS[number % IDS.len()]);
        match *op {
            Op::Kick { id, delay } => self.kick(id, delay / HASTE).await,
            Op::Cancel(number) => {
                let answer = jobs.cancel(&id(number)).await;
                self.note(begun, id(number), What::CalledOff, answer);
            }
            Op::CancelAll(one, other) => {
                let ids = [id(one), id(other)];
                for (id, answer) in ids.iter().zip(jobs.cancel_all(&ids).await) {
                    self.note(begun, id.clone(), What::CalledOff, answer);
                }
            }
            Op::Abort(number) => {
                let answer = jobs.abort(&id(number), PATIENCE).await;
                self.note(begun, id(number), What::CalledOff, answer);
            }
            Op::Retry(number) => {
                let answer = jobs.retry(&id(number)).await;
                self.note(begun, id(number), What::Launched, answer);
            }
            Op::RetryTwice(number) => {
                let id = id(number);
                let (one, other) = tokio::join!(jobs.retry(&id), jobs.retry(&id));
                self.note(begun, id.clone(), What::Launched, one);
                self.note(begun, id, What::Launched, other);
            }
            Op::Remove(number) => {
                let answer = jobs.remove(&id(number)).await;
                self.note(begun, id(number), What::CalledOff, answer);
            }
            Op::Clean { status, limit } => {
                for id in jobs.clean(status, "0s", limit).await.unwrap().done {
                    self.note(begun, id, What::Dropped, Ok(true));
                }
            }
            Op::Purge => {
                self.client.queues().purge(QUEUE).await.unwrap();
                for number in 0..IDS.len() {
                    self.note(begun, id(number), What::Dropped, Ok(true));
                }
            }
            Op::Pause => self.client.queues().pause(QUEUE).await.unwrap(),
            Op::Resume => drop(self.client.queues().resume(QUEUE).await.unwrap()),
            Op::Finish(..) | Op::Advance(_) | Op::StartWorker | Op::StopWorker(_) | Op::DropWorker(_) => {
                unreachable!("no client does {op:?}")
            }
        }
    }

    async fn kick(&self, id: Option<usize>, delay: Duration) {
        let begun = Instant::now();
        let call = held().delay(delay);
        let call = if let Some(number) = id { call.id(IDS[number]) } else { call };
        let handle = self.client.kiq(call).await.unwrap();
        self.note(begun, handle.id().clone(), What::Launched, Ok(!handle.existing()));
    }

    /// Notes what was done, if it was.
    fn note(&self, begun: Instant, id: JobId, what: What, answer: Result<bool>) {
        if settled(answer) {
            self.deeds.lock().unwrap().push(Deed { id, what, begun, returned: Instant::now() });
        }
    }
}

/// True if the request was done. Others are at work, so the job may be gone, or never at rest.
fn settled(answer: Result<bool>) -> bool {
    match answer {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => false,
        answer => answer.unwrap(),
    }
}

fn check_deeds(deeds: &[Deed], runs: &[Run]) {
    for id in deeds.iter().map(|deed| &deed.id).collect::<BTreeSet<_>>() {
        let deeds: Vec<&Deed> = deeds.iter().filter(|deed| deed.id == *id).collect();
        check_called_off_jobs_do_not_start(&deeds, runs);
        check_no_run_too_many(&deeds, runs);
        check_launched_jobs_run(&deeds, runs);
    }
}

/// A job that was launched runs, unless somebody calls it off. The run may have been before: of a
/// job that ended just then, and was not removed since.
fn check_launched_jobs_run(deeds: &[&Deed], runs: &[Run]) {
    // Only those under the chosen ids are noted when a queue is purged.
    if !IDS.contains(&deeds[0].id.as_str()) {
        return;
    }
    for launch in deeds.iter().filter(|deed| deed.what == What::Launched) {
        let dropped = || deeds.iter().filter(|deed| deed.what != What::Launched);
        let counts =
            |ended: Instant| !dropped().any(|deed| deed.returned > ended && deed.returned < launch.begun);
        let ran = runs.iter().any(|run| run.id == launch.id && run.ended.is_some_and(counts));
        let off = dropped().any(|deed| deed.returned > launch.begun);
        assert!(ran || off, "{} was launched, and never ran", launch.id);
    }
}

/// Once a job is called off, its body does not start, unless a client launched it anew meanwhile
/// or later.
fn check_called_off_jobs_do_not_start(deeds: &[&Deed], runs: &[Run]) {
    for off in deeds.iter().filter(|deed| deed.what == What::CalledOff) {
        for run in runs.iter().filter(|run| run.id == off.id && run.started > off.returned) {
            let anew = |deed: &&&Deed| {
                deed.what == What::Launched && deed.returned > off.begun && deed.begun < run.started
            };
            assert!(deeds.iter().any(|deed| anew(&deed)), "{} started after it was called off", off.id);
        }
    }
}

/// A job comes to its end no more often than it was launched.
fn check_no_run_too_many(deeds: &[&Deed], runs: &[Run]) {
    let launched = deeds.iter().filter(|deed| deed.what == What::Launched).count();
    let ended =
        |run: &&Run| run.id == deeds[0].id && matches!(run.end, Some(End::Finished(How::Well | How::Badly)));
    let ended = runs.iter().filter(ended).count();
    assert!(ended <= launched, "{} was launched {launched} times, and ended {ended} times", deeds[0].id);
}

/// A result is that of a run, and a completed job stays so.
fn check_records(records: &[JobRecord], runs: &[Run]) {
    let mut last: BTreeMap<(&JobId, Option<Timestamp>), Status> = BTreeMap::new();
    for record in records {
        let before = last.insert((&record.id, record.kicked_at), record.status);
        let follows = before.is_none_or(|before| before.leads_to(record.status));
        assert!(follows, "{} was {before:?} and became {}", record.id, record.status);
        if let Some(result) = &record.result {
            let run = &runs[result.decode::<usize>().unwrap()];
            assert_eq!((&run.id, run.end), (&record.id, Some(End::Finished(How::Well))));
        }
    }
}
