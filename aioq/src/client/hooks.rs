//! Hooks around every kick of a client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::door::Door;
use crate::error::Result;
use crate::message::{JobId, Message, Name};

/// A hook around every kick of a client: it can change the message, refuse it, or act on the
/// result.
///
/// Every [`Middleware`](crate::middleware::Middleware) is a hook.
#[async_trait]
pub trait KickHook: Send + Sync + 'static {
    /// Passes the message on with `next.run(message)`, or refuses it with an error.
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent>;
}

/// The job of a kick: the new one, or the one that existed under its id or its unique key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Id of the job. It is not the message's id if another job holds its unique key.
    pub id: JobId,
    /// Queue of the job.
    pub queue: Name,
    /// True if the job existed before the kick, which then added nothing.
    pub existing: bool,
}

impl Sent {
    /// A job that was added by the kick.
    #[must_use]
    pub fn new(id: JobId, queue: impl Into<Name>) -> Self {
        Self { id, queue: queue.into(), existing: false }
    }

    /// A job that existed before.
    #[must_use]
    pub fn existing(id: JobId, queue: impl Into<Name>) -> Self {
        Self { existing: true, ..Self::new(id, queue) }
    }
}

/// The hooks further in, and the broker behind them.
pub struct KickNext<'a> {
    hooks: &'a [Arc<dyn KickHook>],
    door: &'a Door,
}

impl<'a> KickNext<'a> {
    /// Passes the message on.
    pub fn run(self, message: Message) -> Pin<Box<dyn Future<Output = Result<Sent>> + Send + 'a>> {
        match self.hooks.split_first() {
            Some((hook, hooks)) => {
                let next = KickNext { hooks, ..self };
                Box::pin(async move { hook.kick(message, next).await })
            }
            None => Box::pin(self.door.send(message)),
        }
    }
}

/// Sends a message through these hooks.
pub(super) async fn send_through(hooks: &[Arc<dyn KickHook>], door: &Door, message: Message) -> Result<Sent> {
    KickNext { hooks, door }.run(message).await
}
