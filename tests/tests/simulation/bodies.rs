//! The jobs: what their bodies do is in their arguments, and every run is in the journal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::{JobId, Timestamp};
use aioq_tests::faults::{Fact, Journal};

/// Number of retries of a job.
pub(crate) const RETRIES: u32 = 2;

/// Behaviours of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends well.
    Well,
    /// Fails so often, then ends well.
    FailsFirst(u32),
    /// Fails each time.
    Fails,
    /// Puts itself off so often, then ends well.
    Snoozes(u32),
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Well, Self::Well, Self::FailsFirst(1), Self::FailsFirst(2), Self::Fails, Self::Snoozes(2)];

    /// The numbers of some.
    pub(crate) const WELL: usize = 0;
    pub(crate) const FAILS: usize = 4;

    pub(crate) fn draw(random: &mut fastrand::Rng) -> usize {
        random.usize(..Self::ALL.len())
    }

    pub(crate) fn number(number: usize) -> Self {
        Self::ALL[number]
    }
}

/// Every run, in the order of the starts.
#[derive(Clone)]
pub(crate) struct Stage {
    runs: Arc<Mutex<Vec<Run>>>,
    journal: Journal,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) id: JobId,
    pub(crate) attempt: u32,
    /// Number of the kick whose arguments it has, if the world numbers the kicks.
    pub(crate) argument: usize,
    pub(crate) end: Option<End>,
    /// The tick of a schedule that it runs for.
    pub(crate) tick: Option<Timestamp>,
    pub(crate) kicked_at: Option<Timestamp>,
    /// True for a later attempt, and for a rerun by hand.
    pub(crate) is_rerun: bool,
    /// Time of its start, by the right clock.
    pub(crate) at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Well,
    Badly,
    Later,
    Dropped,
}

impl Stage {
    pub(crate) fn new(journal: &Journal) -> Self {
        Self { runs: Arc::default(), journal: journal.clone() }
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        self.runs.lock().unwrap().clone()
    }

    fn enter(&self, argument: usize, ctx: &Context) -> OnStage {
        let mut runs = self.runs.lock().unwrap();
        let (id, attempt) = (ctx.id().clone(), ctx.attempt());
        self.journal.note(0, Fact::Started(runs.len(), id.clone(), attempt));
        runs.push(Run {
            id,
            attempt,
            argument,
            end: None,
            tick: ctx.tick(),
            kicked_at: ctx.message().kicked_at,
            is_rerun: attempt > 1 || ctx.message().supersedes != Some(0),
            at: Timestamp::now(),
        });
        OnStage { stage: self.clone(), run: runs.len() - 1 }
    }

    /// Number of times that a job has put itself off.
    fn snoozes(&self, id: &JobId) -> u32 {
        let runs = self.runs.lock().unwrap();
        let own = runs.iter().filter(|run| run.id == *id && run.end == Some(End::Later));
        u32::try_from(own.count()).unwrap()
    }
}

/// Notes the end of a run when it is dropped.
struct OnStage {
    stage: Stage,
    run: usize,
}

impl OnStage {
    fn leave(&self, end: End) {
        let mut runs = self.stage.runs.lock().unwrap();
        if runs[self.run].end.is_none() {
            runs[self.run].end = Some(end);
            self.stage.journal.note(0, Fact::Ended(self.run, format!("{end:?}")));
        }
    }
}

impl Drop for OnStage {
    fn drop(&mut self) {
        self.leave(End::Dropped);
    }
}

/// Lasts so long, then ends as its kind says; returns the number of its run.
#[task(retry(max = 2, backoff = "1s"))]
pub(crate) async fn play(
    kind: usize,
    millis: u64,
    #[inject] ctx: &Context,
    #[inject] stage: &Stage,
) -> TaskResult<usize> {
    perform(0, kind, millis, ctx, stage).await
}

/// The same, with the number of the kick.
pub(crate) async fn perform(
    argument: usize,
    kind: usize,
    millis: u64,
    ctx: &Context,
    stage: &Stage,
) -> TaskResult<usize> {
    let on_stage = stage.enter(argument, ctx);
    tokio::time::sleep(Duration::from_millis(millis)).await;
    let (end, result) = match Kind::number(kind) {
        Kind::FailsFirst(times) if ctx.attempt() <= times => (End::Badly, Err(TaskError::new("badly"))),
        Kind::Fails => (End::Badly, Err(TaskError::new("badly"))),
        Kind::Snoozes(times) if stage.snoozes(ctx.id()) < times => {
            (End::Later, Err(TaskError::snooze(Duration::from_millis(millis + 700))))
        }
        _ => (End::Well, Ok(on_stage.run)),
    };
    on_stage.leave(end);
    result
}
