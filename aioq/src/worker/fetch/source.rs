//! A listener, and the queues that it serves: [`Source`].

use crate::broker::{Delivery, Demand, Listener, Subscription};
use crate::error::Result;
use crate::worker::Shared;

/// The listener for one kind of queues.
#[derive(Default)]
pub(super) struct Source {
    /// The queues that the source listens to.
    pub(super) queues: Vec<String>,
    /// `None` if there are no queues, or all of them are paused.
    pub(super) listener: Option<Box<dyn Listener>>,
}

impl Source {
    pub(super) async fn listen(&mut self, shared: &Shared, queues: Vec<String>) -> Result<()> {
        if !queues.is_empty() {
            let mut subscription = Subscription::new(queues.iter().cloned());
            subscription.ack_wait = shared.options.ack_wait;
            self.listener = Some(shared.scope.client.backend().broker().listen(subscription).await?);
        }
        self.queues = queues;
        Ok(())
    }

    /// True if the source listens to exactly these queues.
    pub(super) fn listens_to(&self, queues: &[String]) -> bool {
        self.queues == queues && self.listener.is_some() != queues.is_empty()
    }

    /// The next deliveries, if there is a demand. Cancel safe.
    pub(super) async fn next(&mut self, demand: Option<Demand>) -> Result<Vec<Delivery>> {
        match (&mut self.listener, demand) {
            (Some(listener), Some(demand)) => listener.next(demand).await,
            _ => std::future::pending().await,
        }
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
        let source = Source { queues: queues.to_vec(), listener: None };
        assert!(!source.listens_to(&queues));
        assert!(Source::default().listens_to(&[]));
    }
}
