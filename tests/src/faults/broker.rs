//! The broker and its listeners over a link.

use std::sync::Arc;

use aioq::broker::{
    Broker, BrokerInfo, Delivery, Demand, Expect, Finding, Kicked, Listener, Page, QueueDepth, Queued,
    QueuedFilter, Subscription,
};
use aioq::message::Envelope;
use aioq::{JobId, Message, Result};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep_until};

use super::link::{Link, refused};
use super::{Broken, Fact, receipt};

pub(super) struct FaultyBroker {
    pub(super) link: Link,
    pub(super) inner: Arc<dyn Broker>,
}

#[async_trait]
impl Broker for FaultyBroker {
    /// It seems to be somewhere else.
    fn info(&self) -> BrokerInfo {
        BrokerInfo::new("faulty", "elsewhere").max_body_bytes(self.inner.info().max_body_bytes)
    }

    async fn startup(&self) -> Result<()> {
        self.inner.startup().await
    }

    /// Others use it.
    async fn shutdown(&self) -> Result<()> {
        Ok(())
    }

    async fn kick(&self, envelope: Envelope, expect: Expect) -> Result<Kicked> {
        if self.link.faults.breaks(Broken::Kicks) {
            return Ok(Kicked::New);
        }
        let act = || {
            let (link, inner, envelope) = (self.link.clone(), Arc::clone(&self.inner), envelope.clone());
            async move {
                let (id, body) = (envelope.id.clone(), envelope.body.clone());
                let kicked = inner.kick(envelope, expect).await?;
                let Message { supersedes, kicked_at, .. } = Message::open(&body)?;
                link.note(Fact::Kicked { id, supersedes, kicked_at, new: kicked == Kicked::New });
                Ok(kicked)
            }
        };
        self.link.tell("kick", envelope.id.as_str(), act).await
    }

    async fn kick_all(&self, envelopes: Vec<(Envelope, Expect)>) -> Vec<Result<Kicked>> {
        let mut fates = Vec::with_capacity(envelopes.len());
        for (envelope, expect) in envelopes {
            fates.push(self.kick(envelope, expect).await);
        }
        fates
    }

    async fn listen(&self, subscription: Subscription) -> Result<Box<dyn Listener>> {
        let inner = self.link.ask("listen", "to queues", self.inner.listen(subscription)).await?;
        Ok(Box::new(FaultyListener {
            link: self.link.clone(),
            broker: Arc::clone(&self.inner),
            inner,
            not_before: None,
        }))
    }

    async fn find(&self, id: &JobId) -> Result<Option<Queued>> {
        if let Some(doubted) = self.link.doubted(id) {
            return Ok(doubted.message);
        }
        let found = self.link.ask("find", id.as_str(), self.inner.find(id)).await?;
        self.link.saw(id, |doubted| doubted.message.clone_from(&found));
        Ok(found)
    }

    async fn list(&self, filter: &QueuedFilter, page: Page) -> Result<Vec<Queued>> {
        self.link.ask("list", "messages", self.inner.list(filter, page)).await
    }

    async fn remove(&self, messages: &[Queued]) -> Vec<Result<bool>> {
        let mut fates = Vec::with_capacity(messages.len());
        for message in messages {
            let act = || {
                let (inner, messages) = (Arc::clone(&self.inner), [message.clone()]);
                async move { inner.remove(&messages).await.remove(0) }
            };
            fates.push(self.link.tell("remove", message.id.as_str(), act).await);
        }
        fates
    }

    async fn queues(&self) -> Result<Vec<String>> {
        self.link.ask("queues", "", self.inner.queues()).await
    }

    async fn depths(&self, queues: &[String]) -> Result<Vec<QueueDepth>> {
        self.link.ask("depths", "", self.inner.depths(queues)).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Queued>> {
        let stream = self.link.ask("watch", "kicks", self.inner.watch()).await?;
        Ok(self.link.stream(stream))
    }

    async fn recover_overdue(&self) -> Result<u64> {
        self.inner.recover_overdue().await
    }

    async fn examine(&self) -> Result<Vec<Finding>> {
        self.link.ask("examine", "", self.inner.examine()).await
    }
}

struct FaultyListener {
    link: Link,
    broker: Arc<dyn Broker>,
    inner: Box<dyn Listener>,
    not_before: Option<Instant>,
}

impl FaultyListener {
    /// Plans the faults of fetched deliveries: all of them may be lost on the way, and come back
    /// after `ack_wait`.
    fn arrived(&self, deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let lost = self.link.is_down()
            || self.link.is_frozen()
            || self.link.faults.happens(self.link.faults.odds().listener / 3);
        for delivery in &deliveries {
            let what = if lost { "is lost" } else { "has come" };
            self.link.note(Fact::Fault("delivery of", format!("{delivery:?}"), what));
        }
        let kept = if lost { Vec::new() } else { deliveries };
        kept.into_iter().map(|delivery| receipt::over(&self.link, &self.broker, delivery)).collect()
    }
}

#[async_trait]
impl Listener for FaultyListener {
    /// Cancel safe: nothing is waited for between the broker's answer and the return.
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        self.link.listens();
        loop {
            self.link.thawed().await;
            if let Some(time) = self.not_before {
                sleep_until(time).await;
                self.not_before = None;
            }
            let planned = self.link.planned("next").is_some();
            if planned || self.link.faults.happens(self.link.faults.odds().listener / 3) {
                self.link.note(Fact::Note("the listener fails".to_owned()));
                return Err(refused("next"));
            }
            let deliveries = self.inner.next(demand).await?;
            if self.link.faults.are_on() {
                self.not_before = Some(Instant::now() + self.link.faults.span());
            }
            // None at all would say that it is stopped.
            let none = deliveries.is_empty();
            let arrived = self.arrived(deliveries);
            if none || !arrived.is_empty() {
                return Ok(arrived);
            }
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.link.ask("stop", "listening", self.inner.stop()).await
    }
}
