//! A delivery over a link.

use std::sync::Arc;
use std::time::Duration;

use aioq::broker::{Broker, Delivery, Expect, Queued, Receipt, Replaced};
use aioq::message::Envelope;
use aioq::{JobId, Result};
use async_trait::async_trait;
use futures_util::FutureExt as _;

use super::Broken;
use super::link::Link;

pub(super) struct FaultyReceipt {
    link: Link,
    broker: Arc<dyn Broker>,
    inner: Arc<dyn Receipt>,
    id: JobId,
    /// The message that was delivered.
    revision: Option<u64>,
}

/// The same delivery, over that link.
pub(super) fn over(link: &Link, broker: &Arc<dyn Broker>, mut delivery: Delivery) -> Delivery {
    let (id, inner) = (delivery.id.clone(), delivery.receipt);
    let revision = newest(broker, &id).map(|queued| queued.revision);
    delivery.receipt =
        Arc::new(FaultyReceipt { link: link.clone(), broker: Arc::clone(broker), inner, id, revision });
    delivery
}

/// The newest message of a job: a broker in memory answers at once.
fn newest(broker: &Arc<dyn Broker>, id: &JobId) -> Option<Queued> {
    broker.find(id).now_or_never()?.ok()?
}

impl FaultyReceipt {
    /// The delivered message, if it is still the newest one and nothing has ended it yet.
    fn weakly(&self) -> Option<Queued> {
        let weak = self.link.faults.odds().weak_receipts;
        newest(&self.broker, &self.id).filter(|queued| weak && Some(queued.revision) == self.revision)
    }

    async fn send<T, F>(&self, what: &'static str, act: impl Fn(Self) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.link.tell(what, self.id.as_str(), || act(self.again())).await
    }

    fn again(&self) -> Self {
        Self {
            link: self.link.clone(),
            broker: Arc::clone(&self.broker),
            inner: Arc::clone(&self.inner),
            id: self.id.clone(),
            revision: self.revision,
        }
    }

    async fn do_ack(self) -> Result<()> {
        match self.weakly() {
            Some(queued) => self.broker.remove(&[queued]).await.remove(0).map(drop),
            None => self.inner.ack().await,
        }
    }

    async fn do_replace(self, next: Envelope) -> Result<Replaced> {
        let Some(queued) = self.weakly() else { return self.inner.replace(next).await };
        self.broker.remove(&[queued]).await.remove(0)?;
        self.broker.kick(next, Expect::Absent).await.map(|_| Replaced::Done)
    }
}

#[async_trait]
impl Receipt for FaultyReceipt {
    fn ack_wait(&self) -> Duration {
        self.inner.ack_wait()
    }

    /// An ack that is on its way may be lost without a word.
    async fn ack(&self) -> Result<()> {
        match self.send("ack", Self::do_ack).await {
            Err(error) if error.is_outage() && self.link.faults.odds().weak_receipts => Ok(()),
            acked => acked,
        }
    }

    async fn release(&self, delay: Duration) -> Result<()> {
        self.send("release", move |receipt| async move { receipt.inner.release(delay).await }).await
    }

    async fn extend(&self) -> Result<()> {
        self.send("extend", |receipt| async move { receipt.inner.extend().await }).await
    }

    async fn replace(&self, next: Envelope) -> Result<Replaced> {
        self.send("replace", |receipt| receipt.do_replace(next.clone())).await
    }

    async fn is_newest(&self) -> Result<bool> {
        if self.link.faults.breaks(Broken::Removals) {
            return Ok(true);
        }
        self.link.ask("is newest", self.id.as_str(), self.inner.is_newest()).await
    }
}
