//! Hooks around every kick of a client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::door::{Door, Sent};
use crate::broker::Kicked;
use crate::error::Result;
use crate::message::Message;
use crate::sync::Lock;

/// A hook around every kick of a client: it can change the message, refuse it, or act on the
/// result.
///
/// Every [`Middleware`](crate::middleware::Middleware) is a hook.
#[async_trait]
pub trait KickHook: Send + Sync + 'static {
    /// Passes the message on with `next.run(message)`, or refuses it with an error.
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Kicked>;
}

/// The hooks further in, and the broker behind them.
pub struct KickNext<'a> {
    hooks: &'a [Arc<dyn KickHook>],
    door: &'a Door,
    /// The message as it was sent: a hook may have changed it.
    sent: &'a Lock<Option<Sent>>,
}

impl<'a> KickNext<'a> {
    /// Passes the message on.
    pub fn run(self, message: Message) -> Pin<Box<dyn Future<Output = Result<Kicked>> + Send + 'a>> {
        match self.hooks.split_first() {
            Some((hook, hooks)) => {
                let next = KickNext { hooks, ..self };
                Box::pin(async move { hook.kick(message, next).await })
            }
            None => Box::pin(async move {
                let sent = self.door.send(message).await?;
                let kicked = sent.kicked;
                *self.sent.lock() = Some(sent);
                Ok(kicked)
            }),
        }
    }
}

/// Sends a message through these hooks.
pub(super) async fn send_through(hooks: &[Arc<dyn KickHook>], door: &Door, message: Message) -> Result<Sent> {
    let (id, queue, sent) = (message.id.clone(), message.queue.clone(), Lock::default());
    let kicked = KickNext { hooks, door, sent: &sent }.run(message).await?;
    let sent = sent.into_inner();
    // Nothing was sent if a hook returned a result of its own.
    let Sent { id, queue, .. } = sent.unwrap_or(Sent { id, queue, kicked });
    Ok(Sent { id, queue, kicked })
}
