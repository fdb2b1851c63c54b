//! The bodies of the jobs: held by the test, and seen by it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aioq::JobId;
use aioq::prelude::*;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::op::How;

/// Delay of a job that has failed or was put off.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// The same where time is real.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// The runs from then on end well.
const ENOUGH: usize = 300;
/// Number of retries of a job.
pub(crate) const RETRIES: u32 = 2;

/// Every run, in the order of the starts.
#[derive(Clone, Default)]
pub(crate) struct Stage {
    runs: Arc<Mutex<Vec<Run>>>,
    /// Ends of the runs that the test does not hold, in turn; without any, it holds all.
    ends: Arc<[How]>,
}

/// One run of a body.
pub(crate) struct Run {
    pub(crate) id: JobId,
    pub(crate) attempt: u32,
    pub(crate) worker_id: String,
    pub(crate) started: Instant,
    pub(crate) end: Option<End>,
    pub(crate) ended: Option<Instant>,
    gate: Option<oneshot::Sender<How>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished(How),
    /// Its future was dropped.
    Dropped,
}

impl Stage {
    /// Whose bodies end by themselves.
    pub(crate) fn of_itself(ends: Vec<How>) -> Self {
        Self { ends: ends.into(), ..Self::default() }
    }

    pub(crate) fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap()
    }

    /// Lets a run come to its end.
    pub(crate) fn finish(&self, run: usize, how: How) {
        let gate = self.runs()[run].gate.take();
        gate.and_then(|gate| gate.send(how).ok()).expect("the body waits");
    }

    /// Waits until a run may come to its end.
    async fn end(&self, run: usize, opened: oneshot::Receiver<How>) -> How {
        match self.ends.len() {
            0 => opened.await.expect("the stage outlives the body"),
            // A job that is put off for ever never ends.
            _ if run >= ENOUGH => How::Well,
            ends => {
                tokio::time::sleep(Duration::from_millis(run as u64 % 4)).await;
                self.ends[run % ends]
            }
        }
    }

    fn pause(&self) -> Duration {
        if self.ends.is_empty() { PAUSE } else { SHORT_PAUSE }
    }

    fn enter(&self, ctx: &Context) -> (OnStage, oneshot::Receiver<How>) {
        let (gate, opened) = oneshot::channel();
        let mut runs = self.runs();
        runs.push(Run {
            id: ctx.id().clone(),
            attempt: ctx.attempt(),
            worker_id: ctx.worker_id().to_owned(),
            started: Instant::now(),
            end: None,
            ended: None,
            gate: Some(gate),
        });
        (OnStage { stage: self.clone(), run: runs.len() - 1 }, opened)
    }
}

/// Notes the end of a run when it is dropped.
struct OnStage {
    stage: Stage,
    run: usize,
}

impl OnStage {
    fn leave(&self, end: End) {
        let mut runs = self.stage.runs();
        let run = &mut runs[self.run];
        run.end.get_or_insert(end);
        run.ended.get_or_insert_with(Instant::now);
    }
}

impl Drop for OnStage {
    fn drop(&mut self) {
        self.leave(End::Dropped);
    }
}

/// Runs until the test says how it ends; returns the number of its run.
#[task(retry(max = 2))]
pub(crate) async fn held(#[inject] ctx: &Context, #[inject] stage: &Stage) -> TaskResult<usize> {
    let (on_stage, opened) = stage.enter(ctx);
    let how = stage.end(on_stage.run, opened).await;
    on_stage.leave(End::Finished(how));
    match how {
        How::Well => Ok(on_stage.run),
        How::Badly => Err(TaskError::fatal("badly")),
        How::Again => Err(TaskError::retry_in(stage.pause(), "again")),
        How::Later => Err(TaskError::snooze(stage.pause())),
    }
}
