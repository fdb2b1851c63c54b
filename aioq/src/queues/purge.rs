//! Emptying a queue.

use std::time::Duration;

use bytes::Bytes;

use super::Queues;
use crate::broker::{Delivery, Demand, Listener, Page, QueuedFilter, Subscription, Waiting};
use crate::bulk::Bulk;
use crate::error::Result;
use crate::message::{JobId, Message, check_queue_name};
use crate::store::forget;

/// How many messages to take at once.
const AT_ONCE: usize = 500;

/// How long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_secs(1);

impl Queues {
    /// Drops every job that waits in a queue: for a worker, for its time, or to run again. Nothing of them is kept.
    /// Those that a worker holds already are run.
    ///
    /// What waits for a worker is taken as a worker takes it, so that no job is dropped that another worker has.
    ///
    /// # Errors
    /// What the backend reports when it cannot be reached. Part of the jobs may be gone then.
    pub async fn purge(&self, queue: &str) -> Result<Bulk> {
        check_queue_name(queue)?;
        let mut bulk = Bulk::default();
        for waiting in [Waiting::Scheduled, Waiting::Retrying] {
            self.purge_delayed(queue, waiting, &mut bulk).await?;
        }
        self.purge_ready(queue, &mut bulk).await?;
        Ok(bulk)
    }

    async fn purge_delayed(&self, queue: &str, waiting: Waiting, bulk: &mut Bulk) -> Result<()> {
        let broker = self.client.backend().broker();
        let filter = QueuedFilter::new().queue(queue).waiting(waiting);
        let mut page = Page::oldest(AT_ONCE);
        loop {
            let messages = broker.list(&filter, page).await?;
            let Some(last) = messages.last() else { return Ok(()) };
            page = page.after(last.position);
            for (message, removed) in messages.iter().zip(broker.remove(&messages).await) {
                let dropped = match removed {
                    Ok(true) if Message::base_revision_of(&message.body) > 0 => {
                        self.forget(&message.id, &message.body).await.map(|()| true)
                    }
                    removed => removed,
                };
                bulk.note(&message.id, dropped)?;
            }
        }
    }

    async fn purge_ready(&self, queue: &str, bulk: &mut Bulk) -> Result<()> {
        let broker = self.client.backend().broker();
        let queues = [queue.to_owned()];
        // A broker may count a message that was given back as held until somebody takes it.
        let most = broker.depths(&queues).await?.iter().map(|depth| depth.ready + depth.held).sum();
        if most == 0 {
            return Ok(());
        }
        let mut listener = broker.listen(Subscription::new(queues)).await?;
        let dropped = self.drop_all(&mut *listener, most, bulk).await;
        listener.stop().await?;
        dropped
    }

    /// Drops so many messages, or fewer if others take them.
    async fn drop_all(&self, listener: &mut dyn Listener, most: u64, bulk: &mut Bulk) -> Result<()> {
        let mut taken = 0;
        while taken < most {
            let left = usize::try_from(most - taken).unwrap_or(usize::MAX);
            let demand = Demand { now: left.min(AT_ONCE), prefetch: 0 };
            let Ok(deliveries) = tokio::time::timeout(PATIENCE, listener.next(demand)).await else { break };
            let deliveries = deliveries?;
            if deliveries.is_empty() {
                break;
            }
            for delivery in deliveries {
                taken += 1;
                bulk.note(&delivery.id, self.drop_one(&delivery).await)?;
            }
        }
        Ok(())
    }

    /// Drops a message and what its job left; false if the job has a newer one, which counts.
    async fn drop_one(&self, delivery: &Delivery) -> Result<bool> {
        // A first delivery of a fresh job has no record, and need not be looked for.
        if delivery.deliveries == 1 && Message::base_revision_of(&delivery.body) == 0 {
            delivery.receipt.ack().await?;
            return Ok(true);
        }
        let newest = delivery.receipt.is_newest().await?;
        delivery.receipt.ack().await?;
        if newest {
            self.forget(&delivery.id, &delivery.body).await?;
        }
        Ok(newest)
    }

    /// Forgets what earlier attempts of a job left, or a run that was given up. The end of the run that the message
    /// is of is no such thing: its worker died before it acked.
    async fn forget(&self, id: &JobId, body: &Bytes) -> Result<()> {
        let Some(jobs) = self.client.backend().jobs() else { return Ok(()) };
        let Some(stored) = jobs.get(id).await? else { return Ok(()) };
        let ended = stored.record.status.is_terminal() || stored.record.is_removed();
        if ended && stored.revision > Message::base_revision_of(body) {
            return Ok(());
        }
        forget(&**jobs, &[stored], self.client.now())
            .await
            .into_iter()
            .try_for_each(|removed| removed.map(drop))
    }
}
