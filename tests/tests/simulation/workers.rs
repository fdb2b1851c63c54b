//! A worker that can be stopped, crashed and frozen.

use std::time::Duration;

use aioq::prelude::*;
use aioq::testing::TestClock;
use aioq::worker::{Summary, WorkerOptions};
use aioq::{Backend, Result};
use aioq_tests::faults::{Fact, Faults, Link};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bodies::Stage;

/// Starts without an end after which a job is poison.
pub(crate) const MAX_CRASHES: u32 = 3;

/// Time that a job stays with a worker without heartbeats.
pub(crate) const ACK_WAIT: Duration = Duration::from_millis(1_200);

/// A worker.
pub(crate) struct Live {
    link: Link,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary>>,
}

impl Live {
    pub(crate) async fn start(
        faults: &Faults,
        backend: &Backend,
        stage: &Stage,
        options: WorkerOptions,
        clock: &TestClock,
    ) -> Self {
        let link = faults.link(backend);
        let options = options.ack_wait(ACK_WAIT).max_crashes(MAX_CRASHES);
        let app = App::new(link.backend().clock(clock)).state(stage.clone()).worker_options(options);
        let worker = app.worker().await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        link.faults().journal().note(link.number(), Fact::Note("a worker starts".to_owned()));
        Self { link, stop, task }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Ends it without a word to anybody.
    pub(crate) async fn crash(self) -> Option<String> {
        self.note("the worker crashes");
        let ended_before = self.task.is_finished();
        self.task.abort();
        let ended = self.task.await;
        if ended_before { unasked(&self.link, ended) } else { None }
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) async fn stop(self) -> Option<String> {
        self.note("the worker is told to stop");
        let ended_before = self.task.is_finished();
        drop(self.stop);
        let ended = self.task.await;
        self.link
            .faults()
            .journal()
            .note(self.link.number(), Fact::Note("the worker has stopped".to_owned()));
        match (ended_before, ended) {
            (false, Ok(_)) => None,
            (_, ended) => unasked(&self.link, ended),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    fn note(&self, what: &str) {
        self.link.faults().journal().note(self.link.number(), Fact::Note(what.to_owned()));
    }
}

/// The mistake of a worker that ended by itself, if any: a worker that could not start may end.
fn unasked(
    link: &Link,
    ended: std::result::Result<Result<Summary>, tokio::task::JoinError>,
) -> Option<String> {
    match ended {
        Ok(Err(error)) if error.is_outage() && !link.has_listened() => None,
        Ok(Ok(summary)) => Some(format!("the worker on link {} ended by itself: {summary:?}", link.number())),
        Ok(Err(error)) => Some(format!("the worker on link {} ended by itself: {error}", link.number())),
        Err(error) => Some(format!("the worker on link {} panicked: {error}", link.number())),
    }
}
