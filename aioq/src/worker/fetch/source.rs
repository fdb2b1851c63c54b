//! A listener, and the queues that it serves: [`Source`].

use futures_util::future::BoxFuture;

use super::plan::QueueKind;
use crate::broker::{Delivery, Demand, Listener, Subscription};
use crate::error::Result;
use crate::worker::Shared;

/// The listener for one kind of queues.
pub(super) struct Source {
    pub(super) kind: QueueKind,
    /// The queues that the source listens to, at least one.
    pub(super) queues: Vec<String>,
    /// `None` before the source listens, and once it is stopped.
    pub(super) listener: Option<Box<dyn Listener>>,
}

impl Source {
    /// A source that does not listen yet.
    pub(super) fn new(kind: QueueKind, queues: Vec<String>) -> Self {
        Self { kind, queues, listener: None }
    }

    pub(super) async fn listen(&mut self, shared: &Shared) -> Result<()> {
        let mut subscription = Subscription::new(self.queues.iter().cloned());
        subscription.ack_wait = shared.options.ack_wait;
        self.listener = Some(shared.scope.client.backend().broker().listen(subscription).await?);
        Ok(())
    }

    /// True if the source listens to exactly these queues, as queues of that kind.
    pub(super) fn listens_to(&self, kind: QueueKind, queues: &[String]) -> bool {
        (self.kind, &*self.queues) == (kind, queues) && self.listener.is_some()
    }

    /// The next deliveries; `None` without a listener. Cancel safe.
    pub(super) fn next(&mut self, demand: Demand) -> Option<BoxFuture<'_, Result<Vec<Delivery>>>> {
        Some(self.listener.as_mut()?.next(demand))
    }

    pub(super) async fn stop(&mut self) {
        if let Some(mut listener) = self.listener.take()
            && let Err(error) = listener.stop().await
        {
            tracing::warn!(%error, "could not give fetched jobs back; they come again after ack_wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_a_listener_listens_to_no_queue() {
        let queues = ["mail".to_owned()];
        // As it is when listening anew was given up half way.
        let source = Source::new(QueueKind::Async, queues.to_vec());
        assert!(!source.listens_to(QueueKind::Async, &queues));
    }
}
