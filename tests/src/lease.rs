//! The time of a lease, as the broker measures it: [`lease_passes`].

use std::time::Duration;

use aioq::Client;
use aioq::broker::{Demand, Expect, Subscription};
use aioq::message::Envelope;

use crate::patience::soon;
use crate::unique_prefix;

/// Waits until a lease of this length that begins now is over: a message on a queue of its own,
/// which nobody finishes, is delivered again. A lease of another holder that began earlier and was
/// not extended is over by then, too.
///
/// # Panics
/// The broker fails.
pub async fn lease_passes(client: &Client, length: Duration) {
    let (broker, name) = (client.backend().broker(), unique_prefix());
    let message = Envelope::new(name.as_str().into(), name.as_str(), "");
    broker.kick(message, Expect::Any).await.expect("the message is kicked");
    let subscription = Subscription::new([name]).ack_wait(length);
    let mut listener = broker.listen(subscription).await.expect("the queue can be listened to");
    let mut next = async || {
        let deliveries = soon(listener.next(Demand { now: 1, prefetch: 0 })).await;
        deliveries.expect("the broker delivers").pop().expect("it is one message")
    };
    next().await;
    let again = next().await;
    assert_eq!(again.deliveries, 2);
    again.receipt.ack().await.expect("the message is acked");
}
