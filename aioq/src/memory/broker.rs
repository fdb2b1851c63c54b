//! [`Broker`] in memory.

mod core;
mod inbox;
mod listener;
mod ops;
mod queues;
mod receipt;
mod state;
mod waiters;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use self::core::Core;
use self::listener::MemoryListener;
use self::state::State;
use crate::broker::{
    Broker, BrokerInfo, Expect, Finding, Kicked, Listener, Page, QueueDepth, Queued, QueuedFilter,
    Subscription,
};
use crate::error::{Error, Result};
use crate::message::{Envelope, JobId};

/// Messages of a bulk kick that are added under one lock.
const KICKS_AT_ONCE: usize = 64;

/// Kicks that a watcher may fall behind before it loses the oldest.
const BACKLOG: usize = 4096;

#[derive(Clone)]
pub(super) struct MemoryBroker(Arc<Core>);

impl Default for MemoryBroker {
    fn default() -> Self {
        Self(Arc::new(Core::new()))
    }
}

impl MemoryBroker {
    pub(super) async fn wait_idle(&self) {
        let idle = self.0.locked(|state| Arc::clone(&state.queues.idle));
        loop {
            // Created before the check, so that a notification after the check is received.
            let notified = idle.notified();
            if self.0.locked(State::await_idle) {
                return;
            }
            notified.await;
        }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn info(&self) -> BrokerInfo {
        BrokerInfo::new("memory", "memory").in_process()
    }

    async fn startup(&self) -> Result<()> {
        self.0.startup();
        Ok(())
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.shutdown();
        Ok(())
    }

    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        self.0.kick(envelope, expect)
    }

    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let mut results = Vec::with_capacity(envelopes.len());
        let mut envelopes = envelopes.into_iter().map(|(envelope, _)| envelope);
        while envelopes.len() > 0 {
            // In batches, so that listeners can take messages in between.
            let count = envelopes.len().min(KICKS_AT_ONCE);
            match self.0.kick_all(envelopes.by_ref().take(count)) {
                Ok(kicked) => results.extend(kicked.into_iter().map(Ok)),
                Err(error) => {
                    let again = || Err(Error::new(error.kind(), error.to_string()));
                    results.extend((0..count).map(|_| again()));
                }
            }
        }
        results
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        let Subscription { queues, ack_wait } = subscription;
        let (waiter, leases) = self.0.with(|state| state.queues.listen(&queues, ack_wait))?;
        Ok(Box::new(MemoryListener::new(self.0.clone(), waiter, leases)))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        let hash = self.0.hash(id);
        self.0.with(|state| state.find(id, hash))
    }

    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>> {
        self.0.with(|state| state.list(filter, page))
    }

    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let remove = |message: &Queued| {
            let hash = self.0.hash(&message.id);
            self.0.with(|state| state.remove(message, hash))
        };
        messages.iter().map(remove).collect()
    }

    async fn queues(&self) -> Result<Vec<String>> {
        self.0.with(|state| state.queues())
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.0.with(|state| state.depths(queues))
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        self.0.watch(BACKLOG)
    }

    async fn examine(&self) -> Result<Vec<Finding>> {
        let text = "Jobs, results and all other state are in this process's memory: when it ends, by a deploy, a \
                    crash or a power loss, all of them are lost, and no other process sees them.";
        let advice =
            "Use this backend for tests and experiments, and NATS (`--nats URL`) for jobs that matter.";
        self.0.with(|_| vec![Finding::warning("process_crash", text).advice(advice)])
    }
}
