//! Waiting for messages, and what their holders do with them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Delivery, Demand, Listener, Receipt, Replaced};
use aioq::{Envelope, Error, ErrorKind, Result, Timestamp};
use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::broker::{Lent, Loan, Shared};

/// [`Listener`] on redb.
pub struct RedbListener {
    shared: Arc<Shared>,
    /// In the order of their turns.
    queues: VecDeque<String>,
    /// A transaction that takes messages. It outlives the future of `next` that began it: were it lost with
    /// that, so would be what it took, until the leases end.
    taking: Option<JoinHandle<Result<Vec<Lent>>>>,
    /// Taken and not handed out yet.
    taken: VecDeque<Lent>,
    stopped: bool,
}

impl RedbListener {
    pub fn new(shared: Arc<Shared>, queues: Vec<String>) -> Self {
        Self { shared, queues: queues.into(), taking: None, taken: VecDeque::new(), stopped: false }
    }

    /// Starts to take up to `count` messages; the queues take turns.
    fn take(&mut self, count: usize) {
        let shared = self.shared.clone();
        let queues: Vec<_> = self.queues.iter().map(|name| (name.clone(), shared.ack_wait(name))).collect();
        self.queues.rotate_left(1.min(self.queues.len()));
        self.taking = Some(tokio::spawn(async move {
            let take = move |tables: &mut crate::broker::Tables<'_>| {
                let mut taken = Vec::new();
                for round in 0.. {
                    let before = taken.len();
                    for (queue, ack_wait) in &queues {
                        if taken.len() < count {
                            taken.extend(tables.lend(queue, *ack_wait)?);
                        }
                    }
                    if taken.len() == before || taken.len() == count || round == count {
                        break;
                    }
                }
                Ok(taken)
            };
            shared.quietly(take).await
        }));
    }

    /// Waits until `take` has ended, if it is under way. Cancel safe: it stays under way.
    async fn finish_taking(&mut self) -> Result<()> {
        if let Some(taking) = &mut self.taking {
            let ended = taking.await;
            self.taking = None;
            let died = |error| Error::new(ErrorKind::Backend, "taking messages died").with_source(error);
            self.taken.extend(ended.map_err(died)??);
        }
        Ok(())
    }

    /// Waits until there may be something to take.
    async fn wait(&self) -> Result<()> {
        let changed = self.shared.changed.notified();
        let queues: Vec<String> = self.queues.iter().cloned().collect();
        // Looked at after `changed` is listening, so that what happens in between is heard.
        let next = self.shared.next_time(queues).await?;
        // Nobody rings for a lease that begins after this look; none of them ends sooner than that.
        let leases = self.queues.iter().map(|queue| self.shared.ack_wait(queue)).min();
        let wait = leases.unwrap_or(Duration::MAX).min(next.map_or(Duration::MAX, Timestamp::until));
        tokio::select! {
            () = changed => {}
            () = sleep(wait) => {}
        }
        Ok(())
    }

    fn hand_out(&mut self, count: usize) -> Vec<Delivery> {
        let now = Timestamp::now();
        // What lay here until its lease ended is somebody else's.
        self.taken.retain(|lent| lent.until > now);
        let count = count.min(self.taken.len());
        self.taken.drain(..count).map(|lent| deliver(&self.shared, lent)).collect()
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
            let queues = self.queues.iter().cloned().collect();
            match self.shared.next_time(queues).await? {
                Some(time) if time <= Timestamp::now() => self.take(demand.now),
                _ => self.wait().await?,
            }
        }
        Ok(Vec::new())
    }

    async fn stop(&mut self) -> Result<()> {
        self.stopped = true;
        self.finish_taking().await?;
        while let Some(lent) = self.taken.front() {
            let loan = lent.loan.clone();
            self.shared.step(move |tables| tables.release(&loan, Duration::ZERO)).await?;
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
        self.shared.quietly(move |tables| tables.ack(&loan)).await
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        let loan = self.loan.clone();
        self.shared.step(move |tables| tables.release(&loan, delay)).await
    }

    async fn extend(&self) -> Result<()> {
        let (loan, ack_wait) = (self.loan.clone(), self.ack_wait);
        self.shared.quietly(move |tables| tables.extend(&loan, ack_wait)).await
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        let loan = self.loan.clone();
        self.shared.step(move |tables| tables.replace(&loan, &next)).await
    }

    async fn is_newest(&self) -> Result<bool> {
        let loan = self.loan.clone();
        self.shared.quietly(move |tables| tables.is_newest(&loan)).await
    }
}
