//! How a call becomes a message in the broker. [`Door`] is the one way to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::broker::{BrokerInfo, Expect, Kicked};
use crate::codec::Arguments;
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{Fault, point};
use crate::message::{
    Envelope, JobId, Label, Labels, Message, Name, Priority, check_labels, check_queue_name, check_task_name,
};
use crate::store::{JobStore, Stored};
use crate::task::TaskOptions;
use crate::time::{IntoDuration, IntoTimestamp, Timestamp, check_span, check_time};

/// What a kick says beyond the task and its arguments.
///
/// A bad value is remembered and refused when the call is kicked.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KickOptions(Option<Box<Chosen>>);

#[derive(Clone, Debug, Default)]
struct Chosen {
    queue: Option<Name>,
    priority: Option<u8>,
    due: Option<Due>,
    ttl: Option<Duration>,
    timeout: Option<Duration>,
    retries: Option<u32>,
    labels: Labels,
    id: Option<JobId>,
    /// The first value that made no sense.
    refused: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    In(Duration),
    At(Timestamp),
}

impl KickOptions {
    /// What the task says.
    pub const fn new() -> Self {
        Self(None)
    }

    /// This queue instead of the task's own.
    pub fn queue(self, queue: impl Into<Name>) -> Self {
        self.set(|chosen| chosen.queue = Some(queue.into()))
    }

    /// 0 to 9, lower first.
    pub fn priority(self, priority: u8) -> Self {
        self.set(|chosen| chosen.priority = Some(priority))
    }

    /// No earlier than this long after the kick, at most [`MAX_SPAN`](crate::MAX_SPAN), as all spans.
    pub fn delay(self, delay: impl IntoDuration) -> Self {
        self.span("delay", delay, |chosen, delay| chosen.due = Some(Due::In(delay)))
    }

    /// No earlier than then; at most [`MAX_SPAN`](crate::MAX_SPAN) ahead.
    pub fn at(self, time: impl IntoTimestamp) -> Self {
        let time = time.into_timestamp();
        self.set(|chosen| match time {
            Ok(time) => chosen.due = Some(Due::At(time)),
            Err(error) => chosen.refuse(&error),
        })
    }

    /// Expires if it has not been started this long after it was due.
    pub fn ttl(self, ttl: impl IntoDuration) -> Self {
        self.span("ttl", ttl, |chosen, ttl| chosen.ttl = Some(ttl))
    }

    /// One attempt may take this long.
    pub fn timeout(self, timeout: impl IntoDuration) -> Self {
        self.span("timeout", timeout, |chosen, timeout| chosen.timeout = Some(timeout))
    }

    /// Retries after the first run.
    pub fn retries(self, max: u32) -> Self {
        self.set(|chosen| chosen.retries = Some(max))
    }

    /// Adds a label.
    pub fn label(self, name: impl Into<String>, value: impl Into<Label>) -> Self {
        self.set(|chosen| drop(chosen.labels.insert(name.into(), value.into())))
    }

    /// An id of your choice; see [`Call::id`](crate::Call::id).
    pub fn id(self, id: impl Into<JobId>) -> Self {
        self.set(|chosen| chosen.id = Some(id.into()))
    }

    fn set(mut self, change: impl FnOnce(&mut Chosen)) -> Self {
        change(self.0.get_or_insert_default());
        self
    }

    fn span(self, name: &str, span: impl IntoDuration, set: impl FnOnce(&mut Chosen, Duration)) -> Self {
        let span = span.into_duration().and_then(|span| check_span(name, span));
        self.set(|chosen| match span {
            Ok(span) => set(chosen, span),
            Err(error) => chosen.refuse(&error),
        })
    }

    /// The first attempt of a job, as the task and these options say, kicked `now`; `id` draws one unless one was chosen.
    pub(crate) fn into_message(
        self,
        task: Name,
        defaults: Option<&TaskOptions>,
        arguments: Arguments,
        id: impl FnOnce() -> JobId,
        now: Timestamp,
    ) -> Result<Message> {
        let chosen = self.0.map_or_else(Chosen::default, |chosen| *chosen);
        if let Some(why) = chosen.refused {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("task `{task}`: {why}")));
        }
        let own_id = chosen.id.is_some();
        let mut message = Message::new(chosen.id.unwrap_or_else(id), task, arguments);
        message.kicked_at = Some(now);
        // Nothing came before this job under a chosen id; the worker checks that it is still so.
        message.supersedes = own_id.then_some(0);
        let mut ttl = chosen.ttl;
        if let Some(defaults) = defaults {
            apply_defaults(&mut message, defaults);
            ttl = ttl.or(defaults.ttl);
        }
        message.labels.extend(chosen.labels);
        message.queue = chosen.queue.unwrap_or(message.queue);
        message.max_retries = chosen.retries.or(message.max_retries);
        message.timeout = chosen.timeout.or(message.timeout);
        if let Some(priority) = chosen.priority {
            message.priority = Priority::new(priority)?;
        }
        message.run_at = match chosen.due {
            Some(Due::In(delay)) => Some(now + delay),
            Some(Due::At(time)) => Some(check_time("the time to run at", time, now)?),
            None => None,
        };
        message.run_at = message.run_at.filter(|due| *due > now);
        message.expires_at = ttl.map(|ttl| message.run_at.unwrap_or(now) + ttl);
        Ok(message)
    }
}

impl Chosen {
    fn refuse(&mut self, error: &Error) {
        self.refused.get_or_insert_with(|| error.to_string());
    }
}

fn apply_defaults(message: &mut Message, defaults: &TaskOptions) {
    if message.queue != defaults.queue {
        message.queue = Name::from_static(defaults.queue);
    }
    message.priority = Priority::new(defaults.priority).unwrap_or_default();
    // Told to whoever runs the message, Python included, and to whoever looks at the job.
    message.max_retries = (defaults.retry.max > 0).then_some(defaults.retry.max);
    message.timeout = defaults.timeout;
    let labels = defaults.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
    message.labels.extend(labels);
}

/// Stands around every kick of a client: it can change the message, refuse it, or look at what became of it.
/// Every [`Middleware`](crate::Middleware) is one.
#[async_trait]
pub trait KickHook: Send + Sync + 'static {
    /// Hands the message on with `next.run(message)`, or refuses it with an error.
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked>;
}

/// The rest of the way to the broker.
pub struct KickNext<'a> {
    hooks: &'a [Arc<dyn KickHook>],
    door: &'a Door,
    /// What was handed over in the end: a hook may have changed the message.
    sent: &'a Mutex<Option<Sent>>,
}

impl<'a> KickNext<'a> {
    /// Hands the message on.
    pub fn run(self, message: Message) -> Pin<Box<dyn Future<Output = Result<Kicked>> + Send + 'a>> {
        match self.hooks.split_first() {
            Some((hook, hooks)) => {
                let next = KickNext { hooks, ..self };
                Box::pin(async move { hook.kick(message, next).await })
            }
            None => Box::pin(async move {
                let sent = self.door.send(message).await?;
                let kicked = sent.kicked;
                *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
                Ok(kicked)
            }),
        }
    }
}

/// Where the job of a kick is: that of the message that was handed over, or that which was there before.
pub(crate) struct Sent {
    pub(crate) id: JobId,
    pub(crate) queue: Name,
    pub(crate) kicked: Kicked,
}

/// What is known of a message before it is handed over.
enum Admitted {
    /// It may be new, if this holds.
    New(Expect),
    /// Its job was there before, in this queue.
    Existing(Name),
}

/// Messages of a bulk kick that are handed over at a time.
const BULK: usize = 2048;

/// The one door to the broker: checks a message, seals it, hands it over.
pub(crate) struct Door {
    backend: Backend,
    /// The broker shares this process, so it cannot be away.
    in_process: bool,
    max_payload_bytes: usize,
    /// The largest message that the broker takes.
    max_body_bytes: usize,
    deadline: Duration,
    /// The process that connected.
    process: u32,
}

/// What later attempts add to a message at most: their number, when they are due, which record they come after.
const ROOM_FOR_ATTEMPTS_BYTES: usize = 512;

impl Door {
    pub(crate) fn new(
        backend: Backend,
        info: &BrokerInfo,
        max_payload_bytes: usize,
        deadline: Duration,
    ) -> Self {
        let BrokerInfo { in_process, max_body_bytes, .. } = *info;
        Self { backend, in_process, max_payload_bytes, max_body_bytes, deadline, process: std::process::id() }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    pub(crate) fn in_process(&self) -> bool {
        self.in_process
    }

    pub(crate) fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Hands over a message by way of these hooks.
    pub(crate) async fn send_through(&self, hooks: &[Arc<dyn KickHook>], message: Message) -> Result<Sent> {
        let (id, queue, sent) = (message.id.clone(), message.queue.clone(), Mutex::default());
        let kicked = KickNext { hooks, door: self, sent: &sent }.run(message).await?;
        let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Without one, a hook has decided on its own.
        let Sent { id, queue, .. } = sent.unwrap_or(Sent { id, queue, kicked });
        Ok(Sent { id, queue, kicked })
    }

    /// Hands over a message.
    pub(crate) async fn send(&self, mut message: Message) -> Result<Sent> {
        let admitted = self.admit(&mut message).await;
        let expect = match admitted.map_err(|error| error.with_id(message.id.clone()))? {
            Admitted::New(expect) => expect,
            Admitted::Existing(queue) => return Ok(Sent { id: message.id, queue, kicked: Kicked::Existing }),
        };
        let envelope = self.seal(&message)?;
        point(Fault::Kicking);
        let kicked = self.confirmed(self.backend.broker.kick(envelope, expect)).await;
        point(Fault::Kicked);
        let Message { id, queue, .. } = message;
        match kicked {
            Ok(kicked) => Ok(self.found(Sent { id, queue, kicked }, expect).await),
            Err(error) => Err(error.with_id(id)),
        }
    }

    /// Hands over many messages, and tells the fate of each to `each`, in order. Those that failed earlier keep their
    /// place.
    ///
    /// Once the broker is away, nothing more is sent: the deadline holds for all of them together.
    pub(crate) async fn send_all(
        &self,
        mut messages: impl Iterator<Item = Result<Message>>,
        mut each: impl FnMut(Result<Sent>),
    ) {
        let (mut fates, mut away) = (Vec::new(), None);
        loop {
            away = self.send_some(messages.by_ref().take(BULK), &mut fates, away).await;
            let was_last = fates.len() < BULK;
            fates.drain(..).for_each(&mut each);
            if was_last {
                return;
            }
        }
    }

    /// Hands over as many messages as a broker takes at once, unless it is `away`; the kind of error if it is.
    async fn send_some(
        &self,
        messages: impl Iterator<Item = Result<Message>>,
        fates: &mut Vec<Result<Sent>>,
        mut away: Option<ErrorKind>,
    ) -> Option<ErrorKind> {
        let (mut envelopes, mut expected) = (Vec::new(), Vec::new());
        // Each is made and sealed in turn: many at once are larger than all that is needed of them.
        for message in messages {
            let fate = match (message, away) {
                (Ok(message), None) => {
                    self.prepare(message, fates.len(), &mut envelopes, &mut expected).await
                }
                (Ok(message), Some(kind)) => Err(unsent(kind).with_id(message.id)),
                (Err(error), _) => Err(error),
            };
            away = away.or_else(|| outage(&fate));
            fates.push(fate);
        }
        if envelopes.is_empty() {
            return away;
        }
        point(Fault::Kicking);
        let kicked = match away {
            None => self.confirmed(async { Ok(self.backend.broker.kick_all(envelopes).await) }).await,
            Some(kind) => Err(unsent(kind)),
        };
        point(Fault::Kicked);
        let mut kicked = kicked.map(Vec::into_iter).map_err(|error| error.kind());
        for (index, expect) in expected {
            let fate = match &mut kicked {
                Ok(kicked) => kicked.next().unwrap_or_else(forgotten),
                Err(kind) => Err(unsent(*kind)),
            };
            away = outage(&fate);
            let Ok(sent) = &mut fates[index] else { continue };
            match fate {
                Ok(Kicked::New) => {}
                Ok(Kicked::Existing) => {
                    let (id, queue) = (sent.id.clone(), sent.queue.clone());
                    let found = self.found(Sent { id, queue, kicked: Kicked::Existing }, expect).await;
                    fates[index] = Ok(found);
                }
                Err(error) => fates[index] = Err(error.with_id(sent.id.clone())),
            }
        }
        away
    }

    /// Checks and seals one message of many, whose fate has that index; it is new as far as is known.
    async fn prepare(
        &self,
        mut message: Message,
        index: usize,
        envelopes: &mut Vec<(Envelope, Expect)>,
        expected: &mut Vec<(usize, Expect)>,
    ) -> Result<Sent> {
        let admitted = self.admit(&mut message).await;
        match admitted.map_err(|error| error.with_id(message.id.clone()))? {
            Admitted::New(expect) => {
                envelopes.push((self.seal(&message)?, expect));
                expected.push((index, expect));
                Ok(Sent { id: message.id, queue: message.queue, kicked: Kicked::New })
            }
            Admitted::Existing(queue) => Ok(Sent { id: message.id, queue, kicked: Kicked::Existing }),
        }
    }

    /// Refuses to go on in a process that was forked from the one that connected: the tasks and threads that hold the
    /// connection are not there.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        let why =
            "this process was forked after the client had connected: fork first, and connect in each process";
        Err(Error::new(ErrorKind::NotStarted, why))
    }

    /// Checks a message, and whether its job may be new. The message then comes after the record of a job of that id that
    /// was removed.
    async fn admit(&self, message: &mut Message) -> Result<Admitted> {
        if !self.in_process {
            self.check_process()?;
        }
        self.check(message)?;
        let Some(base) = message.supersedes else { return Ok(Admitted::New(Expect::Any)) };
        let Some(jobs) = &self.backend.jobs else { return Ok(Admitted::New(Expect::Absent)) };
        Ok(match self.confirmed(jobs.get(&message.id)).await? {
            Some(removed) if base == 0 && removed.record.is_removed() => {
                message.supersedes = Some(self.make_way(&**jobs, &removed, message).await?);
                Admitted::New(Expect::Absent)
            }
            Some(stored) if stored.revision != base => Admitted::Existing(stored.record.queue),
            None if base != 0 => Admitted::Existing(message.queue.clone()),
            _ => Admitted::New(Expect::Absent),
        })
    }

    /// The same, in the queue that the job is in, if it was there before under an id of somebody's choice.
    async fn found(&self, mut sent: Sent, expect: Expect) -> Sent {
        if sent.kicked == Kicked::Existing && expect != Expect::Any {
            // Who waits looks in both places; this is about where to be told.
            if let Ok(Some(queued)) = self.confirmed(self.backend.broker.find(&sent.id)).await {
                sent.queue = queued.queue.into();
            } else if let Some(jobs) = &self.backend.jobs
                && let Ok(Some(stored)) = self.confirmed(jobs.get(&sent.id)).await
            {
                sent.queue = stored.record.queue;
            }
        }
        sent
    }

    /// The record that a message comes after in the place of a removed job. All records of an id are of one queue, so
    /// that of another queue goes.
    async fn make_way(&self, jobs: &dyn JobStore, removed: &Stored, message: &Message) -> Result<u64> {
        if removed.record.queue == message.queue {
            return Ok(removed.revision);
        }
        let gone = self.confirmed(async { Ok(jobs.remove(std::slice::from_ref(removed)).await) }).await;
        let gone = gone.and_then(|gone| gone.into_iter().try_for_each(|gone| gone.map(drop)));
        gone.map(|()| 0).map_err(|error| error.with_id(message.id.clone()))
    }

    fn check(&self, message: &Message) -> Result<()> {
        message.id.check()?;
        if let Some(run_at) = message.run_at {
            // A hook may have set it.
            check_time("the time to run at", run_at, self.backend.now())?;
        }
        check_queue_name(&message.queue)?;
        check_task_name(&message.task)?;
        check_labels(&message.labels)?;
        let (bytes, limit) = (message.arguments.len(), self.max_payload_bytes);
        match bytes <= limit {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the arguments have {bytes} bytes, the limit is {limit}: pass a reference to the data instead"
                ),
            )),
        }
    }

    /// Seals a message, if later attempts of the job fit, too.
    pub(crate) fn seal(&self, message: &Message) -> Result<Envelope> {
        let envelope = message.seal();
        let (bytes, limit) =
            (envelope.body.len(), self.max_body_bytes.saturating_sub(ROOM_FOR_ATTEMPTS_BYTES));
        if bytes <= limit {
            return Ok(envelope);
        }
        let labels = bytes.saturating_sub(message.arguments.len());
        let why = format!(
            "the message has {bytes} bytes, {labels} of them for labels and names; the limit is {limit}: \
             pass a reference to the data instead"
        );
        Err(Error::new(ErrorKind::TooLarge, why).with_id(message.id.clone()))
    }

    /// Brokers keep deadlines of their own; this one holds for a broker that forgets to.
    async fn confirmed<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        if self.in_process {
            return request.await;
        }
        let patience = self.deadline * 2;
        tokio::time::timeout(patience, request).await.unwrap_or_else(|_| {
            let why = format!("the broker did not answer within {}", humantime::format_duration(patience));
            Err(Error::new(ErrorKind::Deadline, why))
        })
    }
}

/// The kind of an error that says that the broker is away.
fn outage<T>(fate: &Result<T>) -> Option<ErrorKind> {
    fate.as_ref().err().filter(|error| error.is_outage()).map(Error::kind)
}

/// What is said of a message that was not handed over any more.
fn unsent(kind: ErrorKind) -> Error {
    Error::new(kind, "not sent: the broker did not take those before it")
}

fn forgotten() -> Result<Kicked> {
    Err(Error::new(ErrorKind::Backend, "the broker forgot a message"))
}
