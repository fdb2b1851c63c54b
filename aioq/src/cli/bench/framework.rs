//! The works, written as a user of aioq would write them.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Site;
use super::job::{Noop, noop};
use crate::bench::{Plan, QUEUE, Sample, Stopwatch, Tally, Work, at_once, steadily};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::registry::Registry;
use crate::registry::TaskDef;
use crate::states::States;
use crate::store::RecordLevel;
use crate::task::KickOptions;
use crate::task::{Call, Configured};
use crate::worker::{Worker, WorkerOptions};

/// Time that a new worker takes to come to rest.
const REST: Duration = Duration::from_secs(1);

/// Runs a work once, on an empty site.
pub(super) async fn run(work: Work, plan: Plan, site: &Site) -> Result<Sample> {
    let client = site.client(plan).await?;
    let run = Run { plan, client: client.clone(), site, queue: site.queue().map(str::to_owned) };
    let sample = match work {
        Work::Kick => run.kick().await,
        Work::Bulk => run.bulk().await,
        Work::Drain => run.drain().await,
        Work::Both => run.both().await,
        Work::Latency => run.latency().await,
        Work::Idle => run.idle().await,
    }?;
    client.shutdown().await?;
    Ok(sample)
}

struct Run<'a> {
    plan: Plan,
    client: Client,
    site: &'a Site,
    /// The queue, if it is not the queue of the task.
    queue: Option<String>,
}

impl Run<'_> {
    async fn kick(&self) -> Result<Sample> {
        let watch = Stopwatch::start();
        let spans = self.kick_at_once().await?;
        Ok(watch.stop(self.plan.jobs).with("kick", spans))
    }

    async fn kick_at_once(&self) -> Result<Vec<Duration>> {
        let (client, queue) = (self.client.clone(), self.queue.clone());
        let kick = move |number| {
            let (client, call) = (client.clone(), call(number as u64, queue.as_ref()));
            async move { client.kiq(call).await.map(drop) }
        };
        at_once(self.plan.jobs, kick).await
    }

    async fn bulk(&self) -> Result<Sample> {
        let watch = Stopwatch::start();
        self.kick_all().await?;
        Ok(watch.stop(self.plan.jobs))
    }

    async fn kick_all(&self) -> Result<()> {
        let calls = (0..self.plan.jobs).map(|number| call(number as u64, self.queue.as_ref()));
        self.client.kiq_all(calls).await.into_iter().try_for_each(|kicked| kicked.map(drop))
    }

    async fn drain(&self) -> Result<Sample> {
        self.kick_all().await?;
        let tally = Tally::of(self.plan.jobs);
        let worker = self.worker(&tally).await?;
        let watch = Stopwatch::start();
        // The worker ends when all its jobs are settled.
        Running::start(worker, async move { tally.full().await }).ended().await?;
        Ok(watch.stop(self.plan.jobs))
    }

    async fn both(&self) -> Result<Sample> {
        let tally = Tally::of(self.plan.jobs);
        let worker = self.worker(&tally).await?;
        let watch = Stopwatch::start();
        let running = Running::start(worker, async move { tally.full().await });
        let spans = self.kick_at_once().await?;
        running.ended().await?;
        Ok(watch.stop(self.plan.jobs).with("kick", spans))
    }

    async fn latency(&self) -> Result<Sample> {
        let tally = Tally::with_starts(self.plan.jobs + 1);
        let (stop, stopped) = oneshot::channel();
        let running = Running::start(self.worker(&tally).await?, until(stopped));
        let measured = async {
            self.stamp_one(&tally).await?;
            let watch = Stopwatch::start();
            let spans = steadily(self.plan.jobs, |_| self.stamp_one(&tally)).await?;
            tally.full().await;
            Ok::<_, Error>((watch.stop(self.plan.jobs), spans))
        };
        let mut ended = std::pin::pin!(running.ended());
        let (sample, spans) = tokio::select! {
            measured = measured => measured?,
            ended = &mut ended => {
                ended?;
                return Err(Error::new(ErrorKind::Backend, "the worker ended before all jobs had run"));
            }
        };
        drop(stop);
        ended.await?;
        // Leaves out the first job, which ran before the measurement.
        let sample = sample.with("start", tally.starts().split_off(1));
        Ok(if self.has_results() { sample.with("result", spans) } else { sample })
    }

    /// Kicks a job that records the time until its start, and waits for its result.
    fn stamp_one(&self, tally: &Tally) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let (client, queue, tally) = (self.client.clone(), self.queue.clone(), tally.clone());
        let has_results = self.has_results();
        async move {
            let handle = client.kiq(call(tally.now(), queue.as_ref())).await?;
            if has_results {
                handle.result().await?;
            }
            Ok(())
        }
    }

    fn has_results(&self) -> bool {
        self.plan.records != RecordLevel::None && self.client.backend().jobs().is_some()
    }

    async fn idle(&self) -> Result<Sample> {
        let (stop, stopped) = oneshot::channel();
        let running = Running::start(self.worker(&Tally::of(1)).await?, until(stopped));
        tokio::time::sleep(REST).await;
        let watch = Stopwatch::start();
        tokio::time::sleep(self.plan.idle).await;
        let sample = watch.stop(0);
        drop(stop);
        running.ended().await?;
        Ok(sample)
    }

    /// A worker with its own connection and only the task of the benchmark.
    async fn worker(&self, tally: &Tally) -> Result<Worker> {
        let client = self.site.client(self.plan).await?;
        let registry = Registry::default().with(TaskDef::of::<Noop>())?;
        let mut states = States::default();
        states.insert(tally.clone());
        let queue = self.queue.as_deref().unwrap_or(QUEUE);
        let options = WorkerOptions::new().queues([queue]).concurrency(self.plan.concurrency);
        Worker::new(client, registry, states, Vec::new(), options)
    }
}

fn call(number: u64, queue: Option<&String>) -> Call<Noop, Configured> {
    let options = KickOptions::new();
    noop(number).options(match queue {
        None => options,
        Some(queue) => options.queue(queue),
    })
}

/// Resolves when the sender is dropped.
async fn until(stopped: oneshot::Receiver<()>) {
    let _ = stopped.await;
}

/// A running worker. Dropping it aborts the worker.
struct Running {
    client: Client,
    tasks: JoinSet<Result<()>>,
}

impl Running {
    fn start(worker: Worker, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        let client = worker.client().clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { worker.run(shutdown).await.map(drop) });
        Self { client, tasks }
    }

    async fn ended(mut self) -> Result<()> {
        if let Some(ended) = self.tasks.join_next().await {
            let died = |error| Error::new(ErrorKind::Backend, "the worker died").with_source(error);
            ended.map_err(died)??;
        }
        self.client.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use crate::bench::{RawMessage, RawRecord, now_us};
    use crate::memory::Memory;

    #[tokio::test]
    async fn the_bytes_of_the_raw_programs_are_those_of_the_framework() -> Result<()> {
        let app = App::new(Memory::new()).task(TaskDef::of::<Noop>()).state(Tally::of(1));
        let worker = app.worker_options(WorkerOptions::new().queues([QUEUE])).worker().await?;
        let handle = worker.client().kiq(noop(7)).await?;
        let queued = worker.client().backend().broker().find(handle.id()).await?;
        let body = queued.expect("it waits").body;
        let message = RawMessage::read(&body)?;
        assert_eq!(body, rmp_serde::to_vec_named(&message).expect("bytes"));
        assert_eq!(body.len(), RawMessage::encoded(message.id(), 7).len());
        worker.drain().await?;
        let bytes = handle.record().await?.to_bytes();
        let record: RawRecord<'_> = rmp_serde::from_slice(&bytes).expect("a record");
        assert_eq!(bytes, rmp_serde::to_vec_named(&record).expect("bytes"));
        assert_eq!(bytes.len(), RawRecord::encoded(&message, worker.id(), now_us()).len());
        Ok(())
    }
}
