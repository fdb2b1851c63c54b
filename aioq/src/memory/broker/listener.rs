//! [`Listener`] in memory: takes ready messages, or waits for a notification or the next timer.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::core::Core;
use super::ops::HandedOut;
use super::queues::Leases;
use super::receipt::{ListenerShared, MemoryReceipt};
use super::waiters::WaiterId;
use crate::broker::{Delivery, Demand, Listener};
use crate::error::Result;

pub(super) struct MemoryListener {
    core: Arc<Core>,
    shared: Arc<ListenerShared>,
    waiter: WaiterId,
    stopped: bool,
}

impl MemoryListener {
    /// The listener with that id, whose queues have these leases.
    pub(super) fn new(core: Arc<Core>, waiter: WaiterId, leases: Leases) -> Self {
        let shared = Arc::new(ListenerShared { core: Arc::clone(&core), leases });
        Self { core, shared, waiter, stopped: false }
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.core.locked(|state| state.queues.unlisten(self.waiter));
        }
    }

    /// Takes ready messages, or registers the wait. One locked section, so that no message comes in
    /// between unnoticed.
    fn take(&self, count: usize) -> Result<Result<Vec<Delivery>, Wait<'_>>> {
        self.core.with(|state| {
            let deliveries = state.take(self.waiter, count, |handed_out| self.deliver(handed_out));
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            let next_timer = state.next_timer();
            let notify = state.queues.waiters.wait(self.waiter, next_timer);
            Err(Wait { listener: self, notify, wake_at: next_timer, abandoned: true })
        })
    }

    fn deliver(&self, handed_out: HandedOut) -> Delivery {
        Delivery {
            receipt: Arc::new(MemoryReceipt {
                shared: Arc::clone(&self.shared),
                id: handed_out.id.clone(),
                queue: handed_out.queue_id,
                tag: handed_out.tag,
            }),
            id: handed_out.id,
            queue: handed_out.queue,
            body: handed_out.body,
            deliveries: handed_out.tag.deliveries,
        }
    }
}

#[async_trait]
impl Listener for MemoryListener {
    /// Ignores `prefetch`: a message in memory is handed out as fast as a prefetched one.
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        if self.stopped {
            return Ok(Vec::new());
        }
        loop {
            match self.take(demand.now.max(1))? {
                Ok(deliveries) => return Ok(deliveries),
                Err(wait) => wait.over().await,
            }
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// A registered wait. Dropped before it is over, it wakes another listener in its place.
struct Wait<'a> {
    listener: &'a MemoryListener,
    notify: Arc<Notify>,
    wake_at: Option<Instant>,
    abandoned: bool,
}

impl Wait<'_> {
    async fn over(mut self) {
        let timer = async {
            match self.wake_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.notify.notified() => {}
            () = timer => {}
        }
        self.abandoned = false;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.abandoned {
            let Self { listener, .. } = self;
            listener.core.locked(|state| state.queues.stop_waiting(listener.waiter));
        }
    }
}
