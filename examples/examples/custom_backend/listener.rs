//! The listener, and the receipts of its deliveries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Delivery, Demand, Listener, Receipt, Replaced};
use aioq::message::Envelope;
use aioq::{Error, ErrorKind, Result, Timestamp};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::Shared;
use crate::messages::{Lent, Loan};

/// [`Listener`] on redb.
pub struct RedbListener {
    shared: Arc<Shared>,
    queues: Vec<String>,
    /// A transaction that takes messages. It outlives the future of `next` that began it. Otherwise
    /// the messages that it took would be lost with that future, until their leases end.
    taking: Option<JoinHandle<Result<Vec<Lent>>>>,
    /// Deliveries that are taken and not handed out yet.
    taken: VecDeque<Lent>,
    stopped: bool,
}

impl RedbListener {
    pub fn new(shared: Arc<Shared>, queues: Vec<String>) -> Self {
        Self { shared, queues, taking: None, taken: VecDeque::new(), stopped: false }
    }

    /// Begins to take up to `count` messages.
    fn take(&mut self, count: usize) {
        let (shared, queues) = (self.shared.clone(), self.queues.clone());
        self.taking = Some(tokio::spawn(async move {
            let waits = shared.clone();
            let ack_wait = move |queue: &str| waits.ack_wait(queue);
            shared.quietly(move |messages| messages.lend(&queues, count, ack_wait)).await
        }));
    }

    /// Waits until a running `take` has ended. Cancel safe: the transaction goes on.
    async fn finish_taking(&mut self) -> Result<()> {
        if let Some(taking) = &mut self.taking {
            let ended = taking.await;
            self.taking = None;
            let died = |error| Error::new(ErrorKind::Backend, "taking messages died").with_source(error);
            self.taken.extend(ended.map_err(died)??);
        }
        Ok(())
    }

    fn hand_out(&mut self, count: usize) -> Vec<Delivery> {
        let now = Timestamp::now();
        // A delivery that lay here until its lease ended belongs to another listener.
        self.taken.retain(|lent| lent.until > now);
        let count = count.min(self.taken.len());
        self.taken.drain(..count).map(|lent| deliver(&self.shared, lent)).collect()
    }

    /// Waits until a message may be ready.
    async fn wait(&self) -> Result<()> {
        loop {
            // Listens before it looks, so that it hears a change after the look.
            let changed = self.shared.changed.notified();
            let queues = self.queues.clone();
            let mine = move |name: &str| queues.iter().any(|queue| queue == name);
            let messages = self.shared.messages(mine).await?;
            let next = messages.iter().map(|message| message.visible_from.until()).min();
            if next == Some(Duration::ZERO) {
                return Ok(());
            }
            // No event announces a lease that begins after this look. It ends after the shortest
            // lease.
            let leases = self.queues.iter().map(|queue| self.shared.ack_wait(queue));
            let wait = leases.chain(next).min().unwrap_or(Duration::MAX);
            tokio::select! {
                () = changed => {}
                () = sleep(wait) => {}
            }
        }
    }
}

fn deliver(shared: &Arc<Shared>, lent: Lent) -> Delivery {
    let ack_wait = shared.ack_wait(&lent.queue);
    Delivery {
        id: lent.loan.id.clone(),
        queue: lent.queue.into(),
        body: lent.body,
        deliveries: lent.loan.deliveries,
        receipt: Arc::new(RedbReceipt { shared: shared.clone(), loan: lent.loan, ack_wait }),
    }
}

#[async_trait]
impl Listener for RedbListener {
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        while !self.stopped {
            self.finish_taking().await?;
            let deliveries = self.hand_out(demand.now);
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.wait().await?;
            self.take(demand.now);
        }
        Ok(Vec::new())
    }

    async fn stop(&mut self) -> Result<()> {
        self.stopped = true;
        self.finish_taking().await?;
        while let Some(lent) = self.taken.front() {
            let loan = lent.loan.clone();
            self.shared.step(move |messages| messages.hide(&loan, Duration::ZERO, false)).await?;
            self.taken.pop_front();
        }
        Ok(())
    }
}

/// [`Receipt`] on redb.
struct RedbReceipt {
    shared: Arc<Shared>,
    loan: Loan,
    ack_wait: Duration,
}

#[async_trait]
impl Receipt for RedbReceipt {
    fn ack_wait(&self) -> Duration {
        self.ack_wait
    }

    async fn ack(&self) -> Result<()> {
        let loan = self.loan.clone();
        self.shared.quietly(move |messages| messages.ack(&loan)).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        let loan = self.loan.clone();
        self.shared.step(move |messages| messages.hide(&loan, delay, false)).await
    }

    async fn extend(&self) -> Result<()> {
        let (loan, ack_wait) = (self.loan.clone(), self.ack_wait);
        self.shared.quietly(move |messages| messages.hide(&loan, ack_wait, true)).await
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        let loan = self.loan.clone();
        self.shared.step(move |messages| messages.replace(&loan, next)).await
    }

    async fn is_newest(&self) -> Result<bool> {
        let loan = self.loan.clone();
        self.shared.quietly(move |messages| messages.is_newest(&loan)).await
    }
}
