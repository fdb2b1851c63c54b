//! [`Listener`] in memory: takes what is there, else waits for its bell or for the next timer.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::desk::Desk;
use super::places::Leases;
use super::receipt::{MemoryReceipt, Source};
use super::seats::SeatId;
use super::state::Lent;
use crate::broker::{Delivery, Demand, Listener};
use crate::error::Result;

pub(super) struct MemoryListener {
    desk: Arc<Desk>,
    source: Arc<Source>,
    seat: SeatId,
    stopped: bool,
}

impl MemoryListener {
    /// The listener of that seat, at queues with these leases.
    pub(super) fn new(desk: Arc<Desk>, seat: SeatId, leases: Leases) -> Self {
        let source = Arc::new(Source { desk: Arc::clone(&desk), leases });
        Self { desk, source, seat, stopped: false }
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.desk.look(|state| state.places.unlisten(self.seat));
        }
    }

    /// What is there, or how to wait for it. One section, so that nothing comes in between unheard.
    fn take(&self, count: usize) -> Result<Result<Vec<Delivery>, Wait<'_>>> {
        self.desk.with(|state| {
            let deliveries = state.take(self.seat, count, |lent| self.deliver(lent));
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            let next_timer = state.next_timer();
            let (bell, wake_at) = state.places.seats.wait(self.seat, next_timer);
            Err(Wait { listener: self, bell, wake_at, given_up: true })
        })
    }

    fn deliver(&self, lent: Lent) -> Delivery {
        Delivery {
            receipt: Arc::new(MemoryReceipt {
                source: Arc::clone(&self.source),
                id: lent.id.clone(),
                queue: lent.queue_id,
                loan: lent.loan,
            }),
            id: lent.id,
            queue: lent.queue,
            body: lent.body,
            deliveries: lent.loan.deliveries,
        }
    }
}

#[async_trait]
impl Listener for MemoryListener {
    /// Holds nothing ready beyond what it hands out: there is no way to save.
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
        self.leave();
        Ok(())
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A listener that waits. Dropped before the wait is over, it passes on what it was woken for.
struct Wait<'a> {
    listener: &'a MemoryListener,
    bell: Arc<Notify>,
    wake_at: Option<Instant>,
    given_up: bool,
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
            () = self.bell.notified() => {}
            () = timer => {}
        }
        self.given_up = false;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.given_up {
            let Self { listener, .. } = self;
            listener.desk.look(|state| state.places.stop_waiting(listener.seat));
        }
    }
}
