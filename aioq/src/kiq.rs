//! From a call to a handle: the methods of [`Client`] and [`Call`] that kick.

use std::sync::mpsc::RecvTimeoutError;

use serde::Serialize;

use crate::client::{Client, Sent};
use crate::codec::{ArgsEncoder, Arguments, Codec};
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::TaskHandle;
use crate::message::{JobId, Message, Name, UniqueKey};
use crate::task::flow::Flow;
use crate::task::{Call, KickOptions, Task, TaskOptions};
use crate::time::Timestamp;

impl<T: Task, S> Call<T, S> {
    /// Kicks the call through the client in scope (inside a worker, the worker's), or else the
    /// installed one.
    ///
    /// Resolves once the broker has confirmed the job.
    ///
    /// # Errors
    /// - [`NoClient`](ErrorKind::NoClient): no client is in scope and none is installed.
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument), [`Encode`](ErrorKind::Encode),
    ///   [`TooLarge`](ErrorKind::TooLarge): the call cannot be sent as it is; nothing was sent.
    /// - [`Connection`](ErrorKind::Connection), [`Deadline`](ErrorKind::Deadline): not confirmed in
    ///   time. The error carries the id, and kicking again under it is safe.
    /// - [`StorageFull`](ErrorKind::StorageFull): the broker has no room; the error names the
    ///   limit.
    pub async fn kiq(self) -> Result<TaskHandle<T::Output>> {
        Client::current()?.kiq(self).await
    }

    /// [`kiq`](Self::kiq) for code that cannot await, such as the body of a blocking task. Blocks
    /// its thread until the broker has confirmed the job, so do not use it in async code.
    ///
    /// # Errors
    /// As [`kiq`](Self::kiq).
    pub fn kiq_blocking(self) -> Result<TaskHandle<T::Output>> {
        Client::current()?.kiq_blocking(self)
    }
}

impl<T: Task> Flow<T> {
    /// Kicks the flow through the client in scope (inside a worker, the worker's), or else the
    /// installed one; see [`Client::kiq_flow`].
    ///
    /// # Errors
    /// [`NoClient`](ErrorKind::NoClient), and as [`Client::kiq_flow`].
    pub async fn kiq(self) -> Result<TaskHandle<T::Output>> {
        Client::current()?.kiq_flow(self).await
    }
}

impl<T: Task, S> Call<T, S> {
    /// The unique key of the call, for [`Jobs::unique_holder`](crate::jobs::Jobs::unique_holder).
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if neither the task nor the call is unique;
    /// the errors of [`kiq`](Self::kiq) for a call that cannot be sent.
    pub fn unique(self) -> Result<UniqueKey> {
        let message = first_attempt(self, Codec::default(), || JobId::from("unsent"), Timestamp::now())?;
        let tie = message.unique().ok_or_else(|| {
            let why = format!("task `{}` is not unique, and the call has no unique key", T::NAME);
            Error::new(ErrorKind::InvalidArgument, why)
        })?;
        Ok(tie.key.clone())
    }
}

/// The message of a call that is kicked `now`.
fn first_attempt<T: Task, S>(
    call: Call<T, S>,
    codec: Codec,
    new_id: impl FnOnce() -> JobId,
    now: Timestamp,
) -> Result<Message> {
    let (args, options) = call.into_parts();
    let mut encoder = ArgsEncoder::new(codec);
    let encoded = T::encode(&args, &mut encoder);
    encoded.map_err(|error| error.context(format_args!("task `{}`", T::NAME)))?;
    let (task, arguments) = (Name::from_static(T::NAME), encoder.finish());
    Message::first_attempt(task, arguments, options, Some(&T::OPTIONS), new_id, now)
}

impl Client {
    /// Kicks a call; resolves once the broker has confirmed the job.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub async fn kiq<T: Task, S>(&self, call: Call<T, S>) -> Result<TaskHandle<T::Output>> {
        self.kick(self.message_of(call)?).await
    }

    /// Kicks a flow; resolves once the broker has confirmed all its jobs. The handle is that of the
    /// last one.
    ///
    /// None of the jobs starts before all are known to the backend.
    ///
    /// # Errors
    /// As [`Call::kiq`]. After an error of the connection, some jobs may run, and the others fail
    /// after a minute. A flow whose jobs have ids of their own may be kicked again: what exists
    /// stays, the rest is added.
    pub async fn kiq_flow<T: Task>(&self, flow: Flow<T>) -> Result<TaskHandle<T::Output>> {
        let messages = flow.into_messages(self.codec(), || self.next_id(), self.now())?;
        let last = self.send_flow(messages).await?.pop();
        // A flow has at least one job.
        let last = last.ok_or_else(|| Error::new(ErrorKind::Backend, "a flow without jobs"))?;
        Ok(TaskHandle::kicked(self.clone(), last))
    }

    /// Kicks many calls with one flush, and waits for all confirmations.
    ///
    /// Returns the result of each call, in order. Kick hooks get each message. During an outage one
    /// deadline holds for all calls: the messages that were not sent by then fail at once. A call
    /// whose parent among these calls could not be kicked is not kicked either.
    pub async fn kiq_all<T: Task, S>(
        &self,
        calls: impl IntoIterator<Item = Call<T, S>>,
    ) -> Vec<Result<TaskHandle<T::Output>>> {
        self.kick_all(calls.into_iter().map(|call| self.message_of(call))).await
    }

    /// Kicks a task by its name, with its arguments as a map of names and values: for tools, and
    /// for tasks of another program. The arguments are not checked against the task.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub async fn kiq_by_name(
        &self,
        task: &str,
        args: &(impl Serialize + ?Sized),
        options: KickOptions,
    ) -> Result<TaskHandle<()>> {
        let arguments = Arguments::from_map(self.codec(), args)?;
        self.kick(self.message_by_name(task, arguments, options, None)?).await
    }

    /// Kicks a call from code that cannot await; blocks its thread.
    ///
    /// # Errors
    /// As [`Call::kiq`].
    pub fn kiq_blocking<T: Task, S>(&self, call: Call<T, S>) -> Result<TaskHandle<T::Output>> {
        // In a forked process the runtime has no threads, and the kick would never run.
        self.check_process()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        let (client, call) = (self.clone(), call.configured());
        self.runtime().spawn(async move {
            // The receiver is gone only if the thread gave up waiting.
            let _ = sender.send(client.kiq(call).await);
        });
        receiver.recv_timeout(self.deadline() * 3).unwrap_or_else(|error| {
            let (kind, why) = match error {
                RecvTimeoutError::Timeout => {
                    (ErrorKind::Deadline, "the kick was not confirmed in time, is the runtime blocked?")
                }
                RecvTimeoutError::Disconnected => (
                    ErrorKind::NotStarted,
                    "the runtime that this client connected on has ended: connect on one that lasts",
                ),
            };
            Err(Error::new(kind, why))
        })
    }

    /// The handle of a job that was kicked elsewhere or earlier, whose output is an `O`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn handle<O>(&self, id: impl Into<JobId>) -> Result<TaskHandle<O>> {
        let record = self.jobs().get(&id.into()).await?;
        let sent = Sent::existing(record.id, record.queue);
        Ok(TaskHandle::kicked(self.clone(), sent))
    }

    /// Kicks a message.
    pub(crate) async fn kick<O>(&self, message: Message) -> Result<TaskHandle<O>> {
        Ok(TaskHandle::kicked(self.clone(), self.send(message).await?))
    }

    /// Kicks many messages. Items that are errors already keep their place.
    pub(crate) async fn kick_all<O>(
        &self,
        messages: impl Iterator<Item = Result<Message>>,
    ) -> Vec<Result<TaskHandle<O>>> {
        let mut handles = Vec::with_capacity(messages.size_hint().0);
        let handle =
            |sent: Result<Sent>| handles.push(sent.map(|sent| TaskHandle::kicked(self.clone(), sent)));
        self.send_all(messages, handle).await;
        handles
    }

    /// The message of a call that is kicked now.
    pub(crate) fn message_of<T: Task, S>(&self, call: Call<T, S>) -> Result<Message> {
        first_attempt(call, self.codec(), || self.next_id(), self.now())
    }

    /// The message of a task by its name; `defaults` are its options if the program knows the task.
    pub(crate) fn message_by_name(
        &self,
        task: &str,
        arguments: Arguments,
        options: KickOptions,
        defaults: Option<&TaskOptions>,
    ) -> Result<Message> {
        Message::first_attempt(task.into(), arguments, options, defaults, || self.next_id(), self.now())
    }
}
