//! Emptying a queue.

use std::time::Duration;

use super::Queues;
use crate::broker::{Delivery, Demand, Listener, Page, Queued, QueuedFilter, Subscription, Waiting};
use crate::error::Result;
use crate::message::{Message, check_queue_name};

/// How many messages to take at once.
const AT_ONCE: usize = 500;

/// How long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_millis(300);

impl Queues {
    /// Drops every job that waits in a queue: for a worker, for its time, or to run again; how many. Nothing of
    /// them is kept. Those that a worker holds already are run.
    ///
    /// What waits for a worker is taken as a worker takes it, so that no job is dropped that another worker has.
    ///
    /// # Errors
    /// What the backend reports. Part of the jobs may be gone then.
    pub async fn purge(&self, queue: &str) -> Result<u64> {
        check_queue_name(queue)?;
        let mut gone = 0;
        for waiting in [Waiting::Scheduled, Waiting::Retrying] {
            gone += self.purge_delayed(queue, waiting).await?;
        }
        Ok(gone + self.purge_ready(queue).await?)
    }

    async fn purge_delayed(&self, queue: &str, waiting: Waiting) -> Result<u64> {
        let broker = self.client.backend().broker();
        let filter = QueuedFilter::new().queue(queue).waiting(waiting);
        let (mut gone, mut page) = (0, Page::oldest(AT_ONCE));
        loop {
            let messages = broker.list(&filter, page).await?;
            let Some(last) = messages.last() else { return Ok(gone) };
            page = page.after(last.position);
            for (message, removed) in messages.iter().zip(broker.remove(&messages).await) {
                if removed? {
                    gone += 1;
                    self.forget(message).await?;
                }
            }
        }
    }

    async fn purge_ready(&self, queue: &str) -> Result<u64> {
        let broker = self.client.backend().broker();
        let queues = [queue.to_owned()];
        let ready = broker.depths(&queues).await?.iter().map(|depth| depth.ready).sum();
        if ready == 0 {
            return Ok(0);
        }
        let mut listener = broker.listen(Subscription::new(queues)).await?;
        let gone = self.drop_all(&mut *listener, ready).await;
        listener.stop().await?;
        gone
    }

    /// Drops so many messages, or fewer if others take them.
    async fn drop_all(&self, listener: &mut dyn Listener, most: u64) -> Result<u64> {
        let mut gone = 0;
        while gone < most {
            let left = usize::try_from(most - gone).unwrap_or(usize::MAX);
            let demand = Demand { now: left.min(AT_ONCE), prefetch: 0 };
            let Ok(deliveries) = tokio::time::timeout(PATIENCE, listener.next(demand)).await else { break };
            for delivery in deliveries? {
                delivery.receipt.ack().await?;
                self.forget(&queued(&delivery)).await?;
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// Forgets what earlier attempts of a job left.
    async fn forget(&self, message: &Queued) -> Result<()> {
        let base = Message::open(&message.body).ok().and_then(|message| message.supersedes);
        let (Some(jobs), Some(1..)) = (self.client.backend().jobs(), base) else { return Ok(()) };
        let Some(stored) = jobs.get(&message.id).await? else { return Ok(()) };
        jobs.remove(&[stored]).await.into_iter().try_for_each(|removed| removed.map(drop))
    }
}

fn queued(delivery: &Delivery) -> Queued {
    Queued::new(delivery.id.clone(), &*delivery.queue, delivery.body.clone(), true)
}
