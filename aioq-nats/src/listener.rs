//! Receiving side of the broker: [`NatsListener`] pulls from the consumers of its queues.
//!
//! One [`PullState`] holds the buffers and requests of a listener. `next` takes it out of its slot
//! ([`Idle`]) and, when it returns or is dropped, puts it back ([`Busy`]). While the state is in
//! the slot, a task extends the leases of buffered messages and gives back those beyond the
//! prefetch ([`Maintenance`]).

mod doubt;
mod fairness;
mod lane;
mod maintenance;
mod pull;
mod suspend;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::{Delivery, Demand, Listener, Subscription, lease_runtime};
use aioq::message::check_queue_name;
use aioq::{Error, ErrorKind, Result};
use async_trait::async_trait;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::maintenance::Maintenance;
use self::pull::PullState;
use self::suspend::Suspensions;
use crate::link::Outgoing;
use crate::receipt::{EXTEND, QueueContext};
use crate::session::Session;
use crate::session::ack_waits::AckWait;
use crate::setup::ack_wait::{self, Change};
use crate::setup::queues;
use crate::sync::lock;
use crate::wire::lane::{Lane, consumer_name};

/// Number of queues whose consumers are declared at a time.
const CONCURRENT_DECLARATIONS: usize = 16;

/// Receives from queues until it is stopped.
pub(crate) struct NatsListener {
    idle: Arc<Idle>,
    /// Task of [`Maintenance`]; `None` after `stop`.
    maintenance: Option<JoinHandle<()>>,
}

impl NatsListener {
    /// Declares the consumers of the queues and starts to listen.
    pub(crate) async fn open(session: Arc<Session>, subscription: Subscription) -> Result<Self> {
        if subscription.queues.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a listener needs at least one queue"));
        }
        let lease = Arc::clone(session.lease().await?);
        let Subscription { queues: names, ack_wait, .. } = &subscription;
        let declarations = (0..names.len()).map(|index| declare(&session, &names[index], *ack_wait));
        let declared: Vec<_> =
            stream::iter(declarations).buffered(CONCURRENT_DECLARATIONS).try_collect().await?;
        let (mut queues, mut changes) = (Vec::new(), Vec::new());
        for (queue, (ack_wait, change)) in names.iter().zip(declared) {
            changes.extend(change);
            let (session, lease, queue) = (Arc::clone(&session), Arc::clone(&lease), queue.as_str().into());
            queues.push(Arc::new(QueueContext { session, lease, queue, ack_wait }));
        }
        let suspensions = Arc::new(Suspensions::new());
        let state = PullState::open(session, &queues, Arc::clone(&suspensions)).await?;
        let idle = Arc::new(Idle::new(state));
        let maintenance = Maintenance::new(queues, changes, Arc::clone(&idle), suspensions).await?;
        Ok(Self { idle, maintenance: Some(lease_runtime().spawn(maintenance.run())) })
    }
}

/// Declares the consumers of a queue, registers the queue, and chooses its `ack_wait`.
async fn declare(
    session: &Session,
    queue: &str,
    ack_wait: Option<Duration>,
) -> Result<(AckWait, Option<Change>)> {
    check_queue_name(queue)?;
    let choosing = ack_wait::choose(session, queue, ack_wait);
    let chosen = if session.queues.claim(queue) {
        join(choosing, queues::register(session, queue)).await.0?
    } else {
        choosing.await?
    };
    check_rights(session, queue).await?;
    Ok(chosen)
}

/// Sequence larger than any stream reaches.
const UNUSED_SEQUENCE: u64 = 1 << 53;

/// Fails if the server does not permit pull requests or acks.
///
/// The server reports a denial apart from its answers, so a listener without rights would only look
/// idle. Each right is tried with a request that changes nothing.
async fn check_rights(session: &Session, queue: &str) -> Result<()> {
    let stream = &session.names.jobs;
    for lane in Lane::ALL {
        let consumer = consumer_name(queue, lane);
        // A malformed request, which the consumer refuses.
        let pull = |_| Outgoing::new(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"), "{");
        session.link.ask(session.deadline(), pull).await?;
        // An extension for a message that does not exist.
        let subject = format!("$JS.ACK.{stream}.{consumer}.1.{UNUSED_SEQUENCE}.1.0.0");
        session.link.ask(session.deadline(), |_| Outgoing::new(subject.clone(), EXTEND)).await?;
    }
    Ok(())
}

#[async_trait]
impl Listener for NatsListener {
    async fn next(&mut self, demand: Demand) -> Result<Vec<Delivery>> {
        match Busy::take(&self.idle) {
            Some(mut state) => state.next(demand).await,
            None => Ok(Vec::new()),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.abort();
            // An error here means that the task was aborted.
            let _ = maintenance.await;
        }
        match self.idle.take() {
            Some(state) => state.stop().await,
            None => Ok(()),
        }
    }
}

impl Drop for NatsListener {
    fn drop(&mut self) {
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.abort();
        }
    }
}

/// Slot for the pull state while `next` does not run, with the time at which `next` ended.
struct Idle(Mutex<Option<(Box<PullState>, Instant)>>);

impl Idle {
    fn new(state: PullState) -> Self {
        Self(Mutex::new(Some((Box::new(state), Instant::now()))))
    }

    fn take(&self) -> Option<Box<PullState>> {
        lock(&self.0).take().map(|(state, _)| state)
    }

    fn put(&self, state: Option<Box<PullState>>) {
        *lock(&self.0) = state.map(|state| (state, Instant::now()));
    }

    /// Calls `maintain` with the state and the time since `next` ended; `None` while `next` runs.
    fn with<T>(&self, maintain: impl FnOnce(&mut PullState, Duration) -> T) -> Option<T> {
        lock(&self.0).as_mut().map(|(state, since)| maintain(state, since.elapsed()))
    }
}

/// The pull state while `next` runs. Dropping this puts it back, also when `next` is cancelled.
struct Busy<'a> {
    idle: &'a Idle,
    state: Option<Box<PullState>>,
}

impl<'a> Busy<'a> {
    fn take(idle: &'a Idle) -> Option<Self> {
        Some(Self { idle, state: Some(idle.take()?) })
    }
}

impl Deref for Busy<'_> {
    type Target = PullState;

    fn deref(&self) -> &PullState {
        self.state.as_ref().expect("it is only taken when this is dropped")
    }
}

impl DerefMut for Busy<'_> {
    fn deref_mut(&mut self) -> &mut PullState {
        self.state.as_mut().expect("it is only taken when this is dropped")
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.idle.put(self.state.take());
    }
}
