//! One connection, and how to ask something over it.
//!
//! Every answer comes to one inbox: one subscription, whose reader hands each message to whoever waits for it
//! by the number in its subject. That is cheaper than a subscription or a random name per request, and lets
//! any number of requests be under way at once.

pub(crate) mod credentials;
pub(crate) mod denials;
pub(crate) mod servers;
pub(crate) mod version;

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aioq::{Error, ErrorKind, Result};
use async_nats::{
    Client, Event, HeaderMap, Message, PublishError, PublishErrorKind, StatusCode, Subject, Subscriber,
};
use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::StreamExt;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::{broken, too_late, unsent};
use crate::link::denials::{Denials, Denied, Verb, hash_of};
use crate::link::version::check_version;
use crate::options::Options;

/// What goes out.
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

/// Until when an answer is of use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) span: Duration,
}

impl Deadline {
    pub(crate) fn within(span: Duration) -> Self {
        // The system's clock need not reach farther.
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        Self { at: Instant::now() + span.min(FAR), span }
    }

    /// Until when to wait for one answer before asking again: a server of a cluster may have died with the
    /// question. A break of the own connection is noticed without that; to ask a busy server twice makes it
    /// busier.
    pub(crate) fn patience(self) -> Instant {
        const MOST: Duration = Duration::from_secs(2);
        (Instant::now() + (self.span / 2).min(MOST)).min(self.at)
    }

    pub(crate) fn has_passed(self) -> bool {
        Instant::now() >= self.at
    }
}

/// Whether the connection stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// How often it broke.
    pub(crate) breaks: u64,
    /// It is broken now.
    pub(crate) down: bool,
}

/// One connection to a server or a cluster; it reconnects by itself.
pub(crate) struct Link {
    client: Client,
    address: String,
    replies: Arc<Replies>,
    health: watch::Receiver<Health>,
    /// Told when nobody answers: a stream may have vanished.
    missing: Arc<Notify>,
    denials: Arc<Denials>,
    reader: Mutex<Option<JoinHandle<()>>>,
    /// It was closed on purpose.
    closed: AtomicBool,
}

impl Link {
    /// Connects; tries again until `deadline` where that may help. The connection's tasks run on the
    /// current runtime. `missing` is told when a stream does not answer.
    pub(crate) async fn open(options: &Options, deadline: Deadline, missing: &Arc<Notify>) -> Result<Self> {
        let (replies, denials) = (Arc::new(Replies::default()), Arc::new(Denials::default()));
        let (told, health) = watch::channel(Health::default());
        let observer = Arc::new(Observer {
            address: options.address(),
            credentials: options.describe_credentials(),
            told,
            replies: Arc::clone(&replies),
            denials: Arc::clone(&denials),
            refused: AtomicBool::new(false),
        });
        let on_event = move |event: Event| {
            observer.note(&event);
            std::future::ready(())
        };
        let client = options.connect(deadline, on_event).await?;
        // First: one that is too old may not answer what comes next.
        check_version(&client.server_info().version, &options.address())?;
        let inbox = client.new_inbox();
        let subject = format!("{inbox}.*");
        let subscription = client.subscribe(subject.clone()).await;
        let subscription =
            subscription.map_err(|error| broken("the connection is closed").with_source(error))?;
        replies.set_inbox(inbox);
        let reader = Mutex::new(Some(tokio::spawn(Arc::clone(&replies).read(subscription))));
        let (address, closed, missing) = (options.address(), AtomicBool::new(false), Arc::clone(missing));
        let link = Self { client, address, replies, health, missing, denials, reader, closed };
        // Without an inbox, no answer would ever come.
        link.until_subscribed(&subject, deadline).await?;
        Ok(link)
    }

    /// Waits until the server has read all that was sent, or says that this subscription is not permitted.
    async fn until_subscribed(&self, subject: &str, deadline: Deadline) -> Result<()> {
        let mut news = self.denials.news();
        let mut echo = pin!(self.round_trip(deadline));
        loop {
            tokio::select! {
                biased;
                Ok(()) = news.changed() => self.denials.check(Verb::Subscribe, subject)?,
                done = &mut echo => break done?,
            }
        }
        // What the server says beside its answers comes by way of another task, which was woken before this one.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.denials.check(Verb::Subscribe, subject)
    }

    /// Where it leads, without passwords.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Tells when the connection breaks and when it is back.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Has it looked whether all streams are there.
    pub(crate) fn note_missing(&self) {
        self.missing.notify_one();
    }

    /// Whether it leads to a cluster, where replicas may be behind their leader.
    pub(crate) fn is_clustered(&self) -> bool {
        self.client.server_info().cluster.is_some()
    }

    /// Resolves when the connection has broken and is back, or is closed: what was told meanwhile is lost.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut health = self.health.clone();
        let breaks = health.borrow_and_update().breaks;
        async move {
            // An error says that the connection is closed.
            let _ = health.wait_for(|health| health.breaks != breaks && !health.down).await;
        }
    }

    /// Resolves as [`broken`](Self::broken), and when the server does not permit a subscription.
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

    /// Resolves when the server does not permit that.
    pub(crate) fn denied(
        &self,
        verb: Verb,
        subject: String,
    ) -> impl Future<Output = Error> + Send + 'static + use<> {
        let (denials, mut news) = (Arc::clone(&self.denials), self.denials.news());
        async move {
            loop {
                if let Err(error) = denials.check(verb, &subject) {
                    return error;
                }
                if news.changed().await.is_err() {
                    // No more news than that the connection is gone.
                    std::future::pending().await
                }
            }
        }
    }

    /// Refuses what the server has denied lately.
    pub(crate) fn check_publish(&self, subject: &str) -> Result<()> {
        self.denials.check(Verb::Publish, subject)
    }

    /// Sends without waiting for anything but room in the connection's buffer.
    pub(crate) async fn publish(&self, subject: Subject, payload: Bytes) -> Result<()> {
        self.client.publish(subject, payload).await.map_err(|error| self.unsent(error))
    }

    fn unsent(&self, error: PublishError) -> Error {
        match error.kind() {
            PublishErrorKind::Send => self.gone(),
            _ => unsent(error),
        }
    }

    /// Why nothing can be sent any more.
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

    /// Whether the tasks that hold the connection are gone.
    fn is_gone(&self) -> bool {
        self.health.has_changed().is_err()
    }

    /// Sends; the answer can be awaited later.
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

    /// Asks until there is an answer or `deadline` passes: again whenever the connection broke, nobody was
    /// there to answer, or the answer takes long. `outgoing` makes the message of each try, from 0.
    ///
    /// Returns the answer and the try that it came to. What is asked must not mind being asked twice.
    pub(crate) async fn ask(
        &self,
        deadline: Deadline,
        outgoing: impl Fn(u32) -> Outgoing,
    ) -> Result<(Message, u32)> {
        self.ask_from(0, deadline, outgoing).await
    }

    /// As [`Self::ask`], with tries counted from `attempt`.
    pub(crate) async fn ask_from(
        &self,
        mut attempt: u32,
        deadline: Deadline,
        outgoing: impl Fn(u32) -> Outgoing,
    ) -> Result<(Message, u32)> {
        loop {
            self.until_up(deadline).await?;
            match timeout_at(deadline.patience(), self.ask_once(outgoing(attempt))).await {
                Ok(Ok(message)) if message.status != Some(StatusCode::NO_RESPONDERS) => {
                    return Ok((message, attempt));
                }
                // Nobody answers: JetStream is starting, a cluster elects, or the stream has vanished.
                Ok(Ok(_)) => {
                    self.note_missing();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(Err(Fault::Lost)) | Err(_) => {}
                Ok(Err(Fault::Unsent(error))) => return Err(error),
                Ok(Err(Fault::Denied(denied))) => return Err(denied.into_error()),
            }
            if deadline.has_passed() {
                return Err(self.late(deadline));
            }
            attempt += 1;
        }
    }

    async fn ask_once(&self, outgoing: Outgoing) -> Result<Message, Fault> {
        self.send(outgoing).await.map_err(Fault::Unsent)?.await
    }

    /// Waits until the connection stands.
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

    /// Waits until the server has read everything that was sent before.
    pub(crate) async fn round_trip(&self, deadline: Deadline) -> Result<()> {
        // An echo to the own inbox: the server handles what one connection sends in order.
        let (reply, inbox) = self.replies.expect_echo();
        let echo = async {
            self.client.publish(inbox, Bytes::new()).await.map_err(|error| self.unsent(error))?;
            match reply.await {
                // That it is not permitted to write to the own inbox comes in order, too.
                Ok(_) | Err(Fault::Denied(_)) => Ok(()),
                Err(_) => Err(broken(format!("the connection to {} broke", self.address))),
            }
        };
        timeout_at(deadline.at, echo).await.map_err(|_| self.late(deadline))?
    }

    /// Subscribes; what is published after the server has read this comes in.
    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber> {
        self.denials.check(Verb::Subscribe, &subject)?;
        self.client.subscribe(subject).await.map_err(|_| self.gone())
    }

    /// Subscribes; what is published after this comes in.
    pub(crate) async fn subscribe_now(&self, subject: String, deadline: Deadline) -> Result<Subscriber> {
        let subscription = self.subscribe(subject.clone()).await?;
        self.until_subscribed(&subject, deadline).await?;
        Ok(subscription)
    }

    /// A name for an inbox that nobody else has.
    pub(crate) fn new_inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// A name that no other connection has.
    pub(crate) fn own_name(&self) -> &str {
        self.replies.inbox()
    }

    /// Sends what is buffered and closes. Gives up after `deadline`.
    pub(crate) async fn close(&self, deadline: Deadline) -> Result<()> {
        if self.is_gone() {
            return Err(self.gone());
        }
        self.closed.store(true, Ordering::Relaxed);
        let flushed = match self.health.borrow().down {
            true => Err(broken(format!("the connection to {} is down", self.address))),
            false => Ok(()),
        };
        let flushed = match flushed {
            Ok(()) => self.round_trip(deadline).await,
            down => down,
        };
        // An error here means that the connection is closed already.
        let _ = self.client.drain().await;
        let reader = lock(&self.reader).take();
        if let Some(mut reader) = reader {
            // The reader ends when the connection drops its subscription; a connection that cannot be made
            // any more never does.
            if timeout(Duration::from_millis(500), &mut reader).await.is_err() {
                reader.abort();
            }
        }
        flushed
    }

    fn late(&self, deadline: Deadline) -> Error {
        match self.health.borrow().down {
            true => broken(format!("the connection to {} is down for {:?}", self.address, deadline.span)),
            false => too_late(&self.address, deadline.span),
        }
    }
}

/// Why one try came to nothing.
pub(crate) enum Fault {
    /// The connection broke.
    Lost,
    /// It never left.
    Unsent(Error),
    /// The server does not permit it.
    Denied(Denied),
}

/// Hears what the client library tells of a connection.
struct Observer {
    address: String,
    /// What the connection shows to a server, in words.
    credentials: String,
    told: watch::Sender<Health>,
    replies: Arc<Replies>,
    denials: Arc<Denials>,
    /// That the credentials are refused was told since the connection broke.
    refused: AtomicBool,
}

impl Observer {
    fn note(&self, event: &Event) {
        let address = &self.address;
        match event {
            Event::Disconnected => {
                tracing::warn!(address, "the connection to NATS broke, reconnecting");
                self.told.send_modify(|health| *health = Health { breaks: health.breaks + 1, down: true });
                // Their requests or answers are lost with the connection; who asked asks again.
                self.replies.forget_all();
            }
            Event::Connected => {
                if self.told.borrow().down {
                    tracing::info!(address, "reconnected to NATS");
                }
                self.refused.store(false, Ordering::Relaxed);
                self.told.send_modify(|health| health.down = false);
            }
            Event::Closed => {
                self.told.send_modify(|health| health.down = true);
                self.replies.forget_all();
            }
            Event::SlowConsumer(_) => {
                tracing::warn!("a NATS subscription lost messages: its reader is too slow");
            }
            Event::ServerError(error) if is_refusal(&error.to_string()) => self.note_refused(),
            Event::ServerError(error) => match Denied::read(&error.to_string()) {
                Some(denied) => {
                    let is_told = denied.verb == Verb::Publish && self.replies.deny(&denied);
                    self.denials.note(denied, is_told);
                }
                None => tracing::warn!(%error, "the NATS server reports an error"),
            },
            Event::ClientError(error) if is_refusal(&error.to_string()) => self.note_refused(),
            _ => {}
        }
    }

    fn note_refused(&self) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            let Self { address, credentials, .. } = self;
            tracing::warn!(address, "the NATS server refuses {credentials}, or they have expired; trying on");
        }
    }
}

/// Whether a server that says so will not have these credentials.
fn is_refusal(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.contains("authorization violation") || error.contains("authentication expired")
}

/// Who waits for which answer.
#[derive(Default)]
struct Replies {
    inbox: std::sync::OnceLock<String>,
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting, RandomState>>,
}

struct Waiting {
    /// The hash of the subject that was asked.
    asked: u64,
    answer: oneshot::Sender<Result<Message, Denied>>,
}

impl Replies {
    fn set_inbox(&self, inbox: String) {
        // Set once, when the connection opens.
        let _ = self.inbox.set(inbox);
    }

    fn inbox(&self) -> &str {
        self.inbox.get().map_or("", String::as_str)
    }

    /// A place for the answer from `asked`, and the subject to have it sent to.
    fn expect(self: &Arc<Self>, asked: &str) -> (Reply, String) {
        self.expect_from(|_| hash_of(asked))
    }

    /// The same for an echo, which answers itself.
    fn expect_echo(self: &Arc<Self>) -> (Reply, String) {
        self.expect_from(hash_of)
    }

    fn expect_from(self: &Arc<Self>, asked: impl FnOnce(&str) -> u64) -> (Reply, String) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (answer, receiver) = oneshot::channel();
        let subject = format!("{}.{number}", self.inbox());
        lock(&self.waiting).insert(number, Waiting { asked: asked(&subject), answer });
        (Reply { number, receiver, replies: Arc::clone(self), answered: false }, subject)
    }

    /// Tells those who asked there that the server does not permit it; whether there are any.
    fn deny(&self, denied: &Denied) -> bool {
        let asked = hash_of(&denied.subject);
        let told: Vec<_> =
            lock(&self.waiting).extract_if(|_, waiting| waiting.asked == asked).map(|(_, it)| it).collect();
        let any = !told.is_empty();
        for waiting in told {
            // Nobody waits any more: it took too long to say.
            let _ = waiting.answer.send(Err(denied.clone()));
        }
        any
    }

    async fn read(self: Arc<Self>, mut subscription: Subscriber) {
        while let Some(message) = subscription.next().await {
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            let waiting = number.and_then(|number: u64| lock(&self.waiting).remove(&number));
            if let Some(waiting) = waiting {
                // Nobody waits any more: the answer came too late.
                let _ = waiting.answer.send(Ok(message));
            }
        }
        self.forget_all();
    }

    fn forget_all(&self) {
        let forgotten = std::mem::take(&mut *lock(&self.waiting));
        drop(forgotten);
    }
}

/// An answer to come, unless it is lost with the connection or the server does not permit to ask.
pub(crate) struct Reply {
    number: u64,
    receiver: oneshot::Receiver<Result<Message, Denied>>,
    replies: Arc<Replies>,
    answered: bool,
}

impl Future for Reply {
    type Output = Result<Message, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.receiver).poll(context));
        self.answered = true;
        Poll::Ready(match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(denied)) => Err(Fault::Denied(denied)),
            Err(_) => Err(Fault::Lost),
        })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            lock(&self.replies.waiting).remove(&self.number);
        }
    }
}

/// Locks what no panic can leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader's subscription would keep the connection open.
        if let Some(reader) = lock(&self.reader).take() {
            reader.abort();
        }
    }
}
