//! The receiving end: [`NatsListener`] pulls from the consumers of its queues.
//!
//! What it has received lies in an [`Intake`], which is always in one of two hands: `next` takes it while it
//! runs and puts it back when it returns or is dropped; in between it is parked, and the keeper extends the
//! leases of what lies in it and gives back what is too much.

mod fairness;
mod lane;
mod maintenance;
mod pull;
mod suspend;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{Delivery, Demand, Listener, Subscription, lease_runtime};
use aioq::check_queue_name;
use aioq::{Error, ErrorKind, Result};
use async_trait::async_trait;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::maintenance::Keeper;
use self::pull::Intake;
use self::suspend::Sleeps;
use crate::connection::Session;
use crate::link::{Outgoing, lock};
use crate::receipt::Source;
use crate::setup::ack_wait::{self, AckWait, Change};
use crate::setup::queues;
use crate::wire::subject::{Lane, consumer_name};

/// For how many queues consumers are declared at a time.
const DECLARED_AT_ONCE: usize = 16;

/// Receives from queues until it is stopped.
pub(crate) struct NatsListener {
    parked: Arc<Parked>,
    /// Ended and awaited by `stop`.
    keeper: Option<JoinHandle<()>>,
}

impl NatsListener {
    /// Declares what the queues need, and listens.
    pub(crate) async fn open(session: Arc<Session>, subscription: Subscription) -> Result<Self> {
        if subscription.queues.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a listener needs at least one queue"));
        }
        let lease = Arc::clone(session.lease().await?);
        let Subscription { queues, ack_wait, .. } = &subscription;
        let declared = (0..queues.len()).map(|index| declare(&session, &queues[index], *ack_wait));
        let declared: Vec<_> = stream::iter(declared).buffered(DECLARED_AT_ONCE).try_collect().await?;
        let (mut sources, mut changes) = (Vec::new(), Vec::new());
        for (queue, (ack_wait, change)) in queues.iter().zip(declared) {
            changes.extend(change);
            let (session, lease, queue) = (Arc::clone(&session), Arc::clone(&lease), queue.as_str().into());
            sources.push(Arc::new(Source { session, lease, queue, ack_wait }));
        }
        let sleeps = Arc::new(Sleeps::new());
        let intake = Intake::open(session, sources.clone(), Arc::clone(&sleeps)).await?;
        let parked = Arc::new(Parked::new(intake));
        let keeper = Keeper::new(sources, changes, Arc::clone(&parked), sleeps).await?;
        Ok(Self { parked, keeper: Some(lease_runtime().spawn(keeper.run())) })
    }
}

/// Declares what a queue needs, and settles how long its deliveries stay hidden.
async fn declare(
    session: &Session,
    queue: &str,
    ack_wait: Option<Duration>,
) -> Result<(AckWait, Option<Change>)> {
    check_queue_name(queue)?;
    let settled = ack_wait::settle(session, queue, ack_wait);
    let settled = match session.queues.claim(queue) {
        true => join(settled, queues::write(session, queue)).await.0,
        false => settled.await,
    }?;
    check_rights(session, queue).await?;
    Ok(settled)
}

/// A sequence that no stream comes to.
const NO_MESSAGE: u64 = 1 << 53;

/// Fails if the server does not permit to ask for messages or to ack them. It says so beside its answers, and to
/// nobody who does not wait for one, so each is tried in a way that changes nothing.
async fn check_rights(session: &Session, queue: &str) -> Result<()> {
    let stream = &session.names.jobs;
    for lane in Lane::ALL {
        let consumer = consumer_name(queue, lane);
        // No request that the consumer could understand.
        let pull = |_| Outgoing::new(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"), "{");
        session.link.ask(session.deadline(), pull).await?;
        // A sign of life for a message that there is not.
        let subject = format!("$JS.ACK.{stream}.{consumer}.1.{NO_MESSAGE}.1.0.0");
        session.link.ask(session.deadline(), |_| Outgoing::new(subject.clone(), "+WPI")).await?;
    }
    Ok(())
}

#[async_trait]
impl Listener for NatsListener {
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        match Driven::take(&self.parked) {
            Some(mut intake) => intake.next(demand).await,
            None => Ok(Vec::new()),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
            // An error here says that it was aborted.
            let _ = keeper.await;
        }
        let intake = lock(&self.parked.place).take();
        match intake {
            Some((intake, _)) => intake.stop().await,
            None => Ok(()),
        }
    }
}

impl Drop for NatsListener {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
    }
}

/// Where the intake lies while `next` does not run, and since when.
struct Parked {
    place: Mutex<Option<(Box<Intake>, Instant)>>,
}

impl Parked {
    fn new(intake: Intake) -> Self {
        Self { place: Mutex::new(Some((Box::new(intake), Instant::now()))) }
    }
}

/// The intake while `next` runs; parked again when this is dropped, also half way.
struct Driven<'a> {
    parked: &'a Parked,
    intake: Option<Box<Intake>>,
}

impl<'a> Driven<'a> {
    fn take(parked: &'a Parked) -> Option<Self> {
        let (intake, _) = lock(&parked.place).take()?;
        Some(Self { parked, intake: Some(intake) })
    }
}

impl Deref for Driven<'_> {
    type Target = Intake;

    fn deref(&self) -> &Intake {
        self.intake.as_ref().expect("it is only taken when this is dropped")
    }
}

impl DerefMut for Driven<'_> {
    fn deref_mut(&mut self) -> &mut Intake {
        self.intake.as_mut().expect("it is only taken when this is dropped")
    }
}

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        *lock(&self.parked.place) = self.intake.take().map(|intake| (intake, Instant::now()));
    }
}
