//! Connection to a NATS server, and requests over it: [`Link`].
//!
//! The only place that connects. Other modules send and subscribe through a `Link`.

mod connect;
mod credentials;
mod deadline;
mod denials;
mod health;
mod replies;
mod servers;
mod version;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{
    Client, HeaderMap, Message, PublishError, PublishErrorKind, StatusCode, Subject, Subscriber,
};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};

pub(crate) use self::connect::connect;
pub(crate) use self::deadline::Deadline;
use self::denials::Denials;
pub(crate) use self::denials::Verb;
pub(crate) use self::health::Health;
use self::health::Observer;
use self::replies::Replies;
pub(crate) use self::replies::{Reply, Unanswered};
pub(crate) use self::servers::address;
pub(crate) use self::version::{OLDEST_SERVER, is_new_enough};
use crate::error::{broken, too_late, unsent};
use crate::options::Options;
use crate::sync::lock;

/// Message to send.
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    /// A message without headers.
    pub(crate) fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), headers: None, payload: payload.into() }
    }
}

/// Connection to a server or a cluster. It reconnects by itself.
pub(crate) struct Link {
    client: Client,
    address: String,
    replies: Arc<Replies>,
    health: watch::Receiver<Health>,
    /// Notified when no server answers a request to a stream: the stream may be gone.
    stream_missing: Arc<Notify>,
    denials: Arc<Denials>,
    reader: Mutex<Option<JoinHandle<()>>>,
    /// True after [`close`](Self::close).
    closed: AtomicBool,
}

impl Link {
    /// Connects, retrying until `deadline` where a retry may help.
    ///
    /// The connection's tasks run on the current runtime. `stream_missing` is notified when no
    /// server answers a request to a stream.
    pub(crate) async fn open(
        options: &Options,
        deadline: Deadline,
        stream_missing: &Arc<Notify>,
    ) -> Result<Self> {
        let (replies, denials) = (Arc::new(Replies::default()), Arc::new(Denials::default()));
        let (health_sender, health) = watch::channel(Health::default());
        let observer = Arc::new(Observer {
            address: address(&options.url),
            credentials: connect::describe_credentials(options),
            health: health_sender,
            replies: Arc::clone(&replies),
            denials: Arc::clone(&denials),
            refusal_logged: AtomicBool::new(false),
        });
        let on_event = move |event| {
            observer.observe(&event);
            std::future::ready(())
        };
        let client = connect(options, deadline, on_event).await?;
        // Checked first: an older server may not answer the requests that follow.
        version::check_version(&client.server_info().version, &address(&options.url))?;
        let link = Self {
            client,
            address: address(&options.url),
            replies,
            health,
            stream_missing: Arc::clone(stream_missing),
            denials,
            reader: Mutex::new(None),
            closed: AtomicBool::new(false),
        };
        link.open_inbox(deadline).await?;
        Ok(link)
    }

    /// Subscribes to the inbox of all answers and starts its reader.
    async fn open_inbox(&self, deadline: Deadline) -> Result<()> {
        let inbox = self.client.new_inbox();
        let subject = format!("{inbox}.*");
        let subscription = self.client.subscribe(subject.clone()).await;
        let subscription =
            subscription.map_err(|error| broken("the connection is closed").with_source(error))?;
        self.replies.set_inbox(inbox);
        *lock(&self.reader) = Some(tokio::spawn(Arc::clone(&self.replies).read(subscription)));
        // Without the right to subscribe, no answer would ever come.
        self.until_subscribed(&subject, deadline).await
    }

    /// Waits until the server has read everything sent so far. Fails if it does not permit the
    /// subscription.
    async fn until_subscribed(&self, subject: &str, deadline: Deadline) -> Result<()> {
        let mut denied = self.denials.changes();
        let mut echo = pin!(self.round_trip(deadline));
        loop {
            tokio::select! {
                biased;
                Ok(()) = denied.changed() => self.denials.check(Verb::Subscribe, subject)?,
                done = &mut echo => break done?,
            }
        }
        // A denial arrives through another task, which was woken before this one: let it run first.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.denials.check(Verb::Subscribe, subject)
    }

    /// URLs of the servers, without passwords.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// State of the connection, and its changes.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Requests a check that all streams exist.
    pub(crate) fn report_missing_stream(&self) {
        self.stream_missing.notify_one();
    }

    /// True if the server belongs to a cluster, where replicas may be behind their leader.
    pub(crate) fn is_clustered(&self) -> bool {
        self.client.server_info().cluster.is_some()
    }

    /// Resolves when the connection has broken and is back, or is closed: messages in between are
    /// lost.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut health = self.health.clone();
        let breaks = health.borrow_and_update().breaks;
        async move {
            // An error says that the connection is closed.
            let _ = health.wait_for(|health| health.breaks != breaks && !health.down).await;
        }
    }

    /// Resolves like [`broken`](Self::broken), and when the server denies the subscription to
    /// `subject`.
    pub(crate) fn broken_or_denied(
        &self,
        subject: String,
    ) -> impl Future<Output = ()> + Send + Unpin + 'static + use<> {
        let (broken, denied) = (self.broken(), self.denied(Verb::Subscribe, subject));
        Box::pin(async move {
            tokio::select! {
                () = broken => {}
                _ = denied => {}
            }
        })
    }

    /// Resolves when the server denies this use of `subject`.
    pub(crate) fn denied(
        &self,
        verb: Verb,
        subject: String,
    ) -> impl Future<Output = Error> + Send + 'static + use<> {
        let (denials, mut changes) = (Arc::clone(&self.denials), self.denials.changes());
        async move {
            loop {
                if let Err(error) = denials.check(verb, &subject) {
                    return error;
                }
                if changes.changed().await.is_err() {
                    // The connection is gone, and so is the source of denials.
                    std::future::pending().await
                }
            }
        }
    }

    /// Fails if the server has recently denied publishing to `subject`.
    pub(crate) fn check_publish(&self, subject: &str) -> Result<()> {
        self.denials.check(Verb::Publish, subject)
    }

    /// Sends a message. Waits only for space in the connection's buffer.
    pub(crate) async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        self.client.publish(subject, payload).await.map_err(|error| self.unsent(error))
    }

    fn unsent(&self, error: PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::Send => self.gone(),
            _ => unsent(error),
        }
    }

    /// Error for a connection that can send nothing any more.
    fn gone(&self) -> Error {
        if self.closed.load(Ordering::Relaxed) {
            return broken(format!("the connection to {} is closed", self.address));
        }
        let message = format!(
            "the connection to {} has ended with the runtime that the client connected on: connect on a runtime that \
             lasts, or once in each (every `#[tokio::test]` has its own)",
            self.address
        );
        Error::new(ErrorKind::NotStarted, message)
    }

    /// True if the tasks of the connection have ended.
    fn is_gone(&self) -> bool {
        self.health.has_changed().is_err()
    }

    /// Sends a request and returns its future answer.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Reply> {
        let Outgoing { subject, headers, payload } = outgoing;
        let (reply, inbox) = self.replies.expect(&subject);
        let sent = match headers {
            Some(headers) => {
                self.client.publish_with_reply_and_headers(subject, inbox, headers, payload).await
            }
            None => self.client.publish_with_reply(subject, inbox, payload).await,
        };
        sent.map(|()| reply).map_err(|error| self.unsent(error))
    }

    /// Sends a request until an answer comes or `deadline` passes.
    ///
    /// Sends it again after a break of the connection, when no server answers, and when the answer
    /// is slow. So the request must be safe to repeat. `outgoing` makes the message of each
    /// attempt, counted from 0. Returns the answer and the number of the attempt that got it.
    pub(crate) async fn ask(
        &self,
        deadline: Deadline,
        outgoing: impl Fn(u32) -> Outgoing,
    ) -> Result<(Message, u32)> {
        self.ask_from(0, deadline, outgoing).await
    }

    /// Like [`Self::ask`], with attempts counted from `attempt`.
    pub(crate) async fn ask_from(
        &self,
        mut attempt: u32,
        deadline: Deadline,
        outgoing: impl Fn(u32) -> Outgoing,
    ) -> Result<(Message, u32)> {
        loop {
            self.until_up(deadline).await?;
            match timeout_at(deadline.resend_at(), self.ask_once(outgoing(attempt))).await {
                Ok(Ok(message)) if message.status != Some(StatusCode::NO_RESPONDERS) => {
                    return Ok((message, attempt));
                }
                // No responders: JetStream is starting, a cluster elects a leader, or the stream is
                // gone.
                Ok(Ok(_)) => {
                    self.report_missing_stream();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(Err(Unanswered::Lost)) | Err(_) => {}
                Ok(Err(Unanswered::Unsent(error))) => return Err(error),
                Ok(Err(Unanswered::Denied(denied))) => return Err(denied.into_error()),
            }
            if deadline.has_passed() {
                return Err(self.late(deadline));
            }
            attempt += 1;
        }
    }

    async fn ask_once(&self, outgoing: Outgoing) -> Result<Message, Unanswered> {
        self.send(outgoing).await.map_err(Unanswered::Unsent)?.await
    }

    /// Waits until the connection is up.
    pub(crate) async fn until_up(&self, deadline: Deadline) -> Result<()> {
        if !self.health.borrow().down {
            return Ok(());
        }
        let mut health = self.health.clone();
        match timeout_at(deadline.at, health.wait_for(|health| !health.down)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.gone()),
            Err(_) => Err(self.late(deadline)),
        }
    }

    /// Waits until the server has read everything sent before this call.
    pub(crate) async fn round_trip(&self, deadline: Deadline) -> Result<()> {
        // An echo to the connection's own inbox: the server reads one connection's messages in
        // order.
        let (reply, inbox) = self.replies.expect_echo();
        let echo = async {
            self.client.publish(inbox, Bytes::new()).await.map_err(|error| self.unsent(error))?;
            match reply.await {
                // A denial of the echo comes in order, too, and proves as much.
                Ok(_) | Err(Unanswered::Denied(_)) => Ok(()),
                Err(_) => Err(broken(format!("the connection to {} broke", self.address))),
            }
        };
        timeout_at(deadline.at, echo).await.map_err(|_| self.late(deadline))?
    }

    /// Subscribes. Messages count from the moment the server reads the subscription.
    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber> {
        self.denials.check(Verb::Subscribe, &subject)?;
        self.client.subscribe(subject).await.map_err(|_| self.gone())
    }

    /// Subscribes, and waits until the server has read the subscription.
    pub(crate) async fn subscribe_now(&self, subject: String, deadline: Deadline) -> Result<Subscriber> {
        let subscription = self.subscribe(subject.clone()).await?;
        self.until_subscribed(&subject, deadline).await?;
        Ok(subscription)
    }

    /// New unique subject for answers.
    pub(crate) fn new_inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// Name of this connection, different from all others.
    pub(crate) fn unique_name(&self) -> &str {
        self.replies.inbox()
    }

    /// Sends buffered messages and closes. Gives up after `deadline`.
    pub(crate) async fn close(&self, deadline: Deadline) -> Result<()> {
        if self.is_gone() {
            return Err(self.gone());
        }
        self.closed.store(true, Ordering::Relaxed);
        let is_down = self.health.borrow().down;
        let flushed = if is_down {
            Err(broken(format!("the connection to {} is down", self.address)))
        } else {
            self.round_trip(deadline).await
        };
        // An error here means that the connection is closed already.
        let _ = self.client.drain().await;
        let reader = lock(&self.reader).take();
        if let Some(mut reader) = reader {
            // The reader ends when the connection drops its subscription. A connection that cannot
            // be restored never drops it.
            if timeout(Duration::from_millis(500), &mut reader).await.is_err() {
                reader.abort();
            }
        }
        flushed
    }

    fn late(&self, deadline: Deadline) -> Error {
        let Deadline { span, .. } = deadline;
        if self.health.borrow().down {
            broken(format!("the connection to {} has been down for {span:?}", self.address))
        } else {
            too_late(&self.address, span)
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader's subscription would keep the connection open.
        if let Some(reader) = lock(&self.reader).take() {
            reader.abort();
        }
    }
}
