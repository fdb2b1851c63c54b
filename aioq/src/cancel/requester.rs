//! The client's side: asks the workers and waits for their answers.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

use super::protocol::{Answer, CancelRequest, REQUEST_TTL, answer_prefix, request_key};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::message::JobId;
use crate::store::{Entry, Expect, KvChange};
use crate::time::from_now;
use crate::workers::WorkerInfo;

/// Interval between scans for answers that the watch lost, and for workers that have ended.
const RECHECK: Duration = Duration::from_millis(500);

/// A request that is in the shared state.
pub(crate) struct Requester<'a> {
    client: &'a Client,
    /// Unique name of the request, part of its key.
    name: String,
    request: CancelRequest,
}

/// Answers received so far.
struct Answers {
    /// Live workers without an answer, by id.
    missing: BTreeMap<String, WorkerInfo>,
    /// Jobs that a worker had started.
    started: HashSet<JobId>,
}

impl<'a> Requester<'a> {
    /// Sends a request, and returns the jobs that workers had started once all workers have
    /// answered.
    ///
    /// # Errors
    /// [`Deadline`](ErrorKind::Deadline) naming the live workers that did not answer. The jobs may
    /// run or not, and the request is withdrawn.
    pub(crate) async fn ask(client: &'a Client, request: CancelRequest) -> Result<(Self, HashSet<JobId>)> {
        let requester = Self { client, name: uuid::Uuid::now_v7().simple().to_string(), request };
        let changes = requester.watch_answers().await?;
        match requester.put_and_await_answers(changes).await {
            Ok(started) => Ok((requester, started)),
            Err(error) => {
                requester.withdraw().await;
                Err(error)
            }
        }
    }

    /// Takes jobs out of the request: they were not cancelled, and workers may start them again.
    pub(crate) async fn narrow(mut self, spared: &HashSet<JobId>) {
        self.request.jobs.retain(|target| !spared.contains(&target.id));
        if self.request.jobs.is_empty() {
            return self.withdraw().await;
        }
        if let Err(error) = self.put().await {
            tracing::warn!(
                %error,
                "could not narrow a cancel request; workers may skip these jobs until it expires in {}",
                humantime::format_duration(REQUEST_TTL)
            );
        }
    }

    async fn withdraw(&self) {
        if let Err(error) = self.client.backend().kv().delete(&request_key(&self.name), Expect::Any).await {
            tracing::warn!(
                %error,
                "could not withdraw a cancel request; it expires by itself in {}",
                humantime::format_duration(REQUEST_TTL)
            );
        }
    }

    async fn put(&self) -> Result<()> {
        let (key, value) = (request_key(&self.name), self.request.encode()?);
        self.client.backend().kv().put(&key, value, Expect::Any, Some(REQUEST_TTL)).await.map(drop)
    }

    async fn watch_answers(&self) -> Result<BoxStream<'static, KvChange>> {
        self.client.backend().kv().watch(&answer_prefix(&self.name)).await
    }

    async fn put_and_await_answers(
        &self,
        mut changes: BoxStream<'static, KvChange>,
    ) -> Result<HashSet<JobId>> {
        self.put().await?;
        let kv = self.client.backend().kv();
        let deadline = from_now(self.client.deadline());
        // A worker that registers after this list was read scans the requests before it fetches.
        let mut answers = Answers { missing: self.workers().await?, started: HashSet::new() };
        while !answers.missing.is_empty() {
            if Instant::now() >= deadline {
                return Err(self.unanswered(&answers.missing));
            }
            match timeout_at(deadline.min(Instant::now() + RECHECK), changes.next()).await {
                // The stored key counts, not the change: any user who may publish there can forge a
                // change.
                Ok(Some(change)) => {
                    if let Some(entry) = kv.get(&change.into_key()).await? {
                        self.receive(&entry, &mut answers);
                    }
                }
                Ok(None) => changes = self.watch_answers().await?,
                Err(_) => {
                    for entry in kv.scan(&answer_prefix(&self.name)).await? {
                        self.receive(&entry, &mut answers);
                    }
                    // A worker that has ended holds no jobs any more.
                    let alive = self.workers().await?;
                    answers.missing.retain(|worker_id, _| alive.contains_key(worker_id));
                }
            }
        }
        Ok(answers.started)
    }

    fn receive(&self, entry: &Entry, answers: &mut Answers) {
        let worker_id = entry.key.strip_prefix(&answer_prefix(&self.name)).unwrap_or_default();
        if let Some(answer) = Answer::decode(&entry.value) {
            answers.missing.remove(worker_id);
            answers.started.extend(answer.started);
        }
    }

    /// Live workers of the request's queues, by id.
    async fn workers(&self) -> Result<BTreeMap<String, WorkerInfo>> {
        let workers = self.client.workers().list().await?.into_iter();
        let concerned = workers.filter(|worker| {
            worker.is_alive() && worker.queues.iter().any(|queue| self.request.queues.contains(queue))
        });
        Ok(concerned.map(|worker| (worker.worker_id.clone(), worker)).collect())
    }

    fn unanswered(&self, missing: &BTreeMap<String, WorkerInfo>) -> Error {
        let names: Vec<String> =
            missing.values().map(|worker| format!("{} on {}", worker.worker_id, worker.host)).collect();
        let message = format!(
            "cannot confirm the cancel: worker {} did not answer within {}",
            names.join(", "),
            humantime::format_duration(self.client.deadline()),
        );
        Error::new(ErrorKind::Deadline, message)
    }
}
