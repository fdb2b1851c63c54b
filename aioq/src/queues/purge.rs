//! Purging a queue.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::Queues;
use crate::broker::{Delivery, Demand, Listener, Page, QueuedFilter, Subscription, Waiting};
use crate::bulk::Bulk;
use crate::error::Result;
use crate::message::{JobId, Message, check_queue_name};
use crate::store::forget;

/// Number of messages to take at once.
const BATCH: usize = 500;

/// Longest wait for the next messages.
const IDLE: Duration = Duration::from_secs(1);

impl Queues {
    /// Drops every waiting job of a queue, pending, scheduled or retrying, with its record. Jobs
    /// that a worker already holds are run.
    ///
    /// Pending jobs are received as a worker receives them, so no job is dropped that a worker has.
    /// Jobs that wait for a dropped one treat it as unknown. Blocked jobs stay.
    ///
    /// # Errors
    /// The errors of the backend when it cannot be reached. Some of the jobs may be dropped by
    /// then.
    pub async fn purge(&self, queue: &str) -> Result<Bulk> {
        check_queue_name(queue)?;
        let mut bulk = Bulk::default();
        let awaited = self.client.dependencies().awaited().await?;
        for waiting in [Waiting::Scheduled, Waiting::Retrying] {
            self.purge_delayed(queue, waiting, &awaited, &mut bulk).await?;
        }
        self.purge_ready(queue, &awaited, &mut bulk).await?;
        Ok(bulk)
    }

    async fn purge_delayed(
        &self,
        queue: &str,
        waiting: Waiting,
        awaited: &HashSet<JobId>,
        bulk: &mut Bulk,
    ) -> Result<()> {
        let broker = self.client.backend().broker();
        let filter = QueuedFilter::new().queue(queue).waiting(waiting);
        let mut page = Page::oldest(BATCH);
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
                let dropped = self.end_wait(&message.id, dropped, awaited).await;
                bulk.note(&message.id, dropped)?;
            }
        }
    }

    async fn purge_ready(&self, queue: &str, awaited: &HashSet<JobId>, bulk: &mut Bulk) -> Result<()> {
        let broker = self.client.backend().broker();
        let queues = [queue.to_owned()];
        // A broker may count a message that a worker gave back as held until it is delivered again.
        let most = broker.depths(&queues).await?.iter().map(|depth| depth.ready + depth.held).sum();
        if most == 0 {
            return Ok(());
        }
        let mut listener = broker.listen(Subscription::new(queues)).await?;
        let dropped = self.drop_all(&mut *listener, most, awaited, bulk).await;
        listener.stop().await?;
        dropped
    }

    /// Drops `most` messages, or fewer if workers take some of them.
    async fn drop_all(
        &self,
        listener: &mut dyn Listener,
        most: u64,
        awaited: &HashSet<JobId>,
        bulk: &mut Bulk,
    ) -> Result<()> {
        let mut taken = 0;
        while taken < most {
            let left = usize::try_from(most - taken).unwrap_or(usize::MAX);
            let demand = Demand { now: left.min(BATCH), prefetch: 0 };
            let Ok(deliveries) = tokio::time::timeout(IDLE, listener.next(demand)).await else { break };
            let deliveries = deliveries?;
            if deliveries.is_empty() {
                break;
            }
            for delivery in deliveries {
                taken += 1;
                let dropped = self.drop_one(&delivery).await;
                let dropped = self.end_wait(&delivery.id, dropped, awaited).await;
                bulk.note(&delivery.id, dropped)?;
            }
        }
        Ok(())
    }

    /// Drops a message and the record of its job. False if the job has a newer message, which
    /// stays.
    async fn drop_one(&self, delivery: &Delivery) -> Result<bool> {
        // The job of a first delivery has no record: it never ran.
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

    /// Ends the wait for a job, if it was dropped and others wait for it.
    async fn end_wait(&self, id: &JobId, dropped: Result<bool>, awaited: &HashSet<JobId>) -> Result<bool> {
        if matches!(dropped, Ok(true)) && awaited.contains(id) {
            self.client.dependencies().dropped(id).await?;
        }
        dropped
    }

    /// Removes the record that earlier attempts, or a lost run, of a job left behind. A record of
    /// the end of the message's own run stays: its worker died between the record and the ack.
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
