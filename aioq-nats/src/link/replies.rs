//! Answers to requests, matched to their requests by the number in their subject: [`Replies`].
//!
//! All answers come to one inbox. Its reader hands each to the request that waits for it. That is
//! cheaper than a subscription or a random name per request, and allows any number of requests at a
//! time.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use aioq::Error;
use async_nats::{Message, Subscriber};
use foldhash::fast::RandomState;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::denials::{Denied, hash_of};
use crate::sync::lock;

/// Reason why a request got no answer.
pub(crate) enum Unanswered {
    /// The connection broke after the request was sent.
    Lost,
    /// The request was not sent.
    Unsent(Error),
    /// The server does not permit the request.
    Denied(Denied),
}

/// Requests that wait for an answer, by number.
#[derive(Default)]
pub(super) struct Replies {
    inbox: OnceLock<String>,
    last: AtomicU64,
    pending: Mutex<HashMap<u64, Pending, RandomState>>,
}

struct Pending {
    /// Hash of the request's subject.
    subject: u64,
    answer: oneshot::Sender<Result<Message, Denied>>,
}

impl Replies {
    pub(super) fn set_inbox(&self, inbox: String) {
        // Set once, when the connection opens.
        let _ = self.inbox.set(inbox);
    }

    pub(super) fn inbox(&self) -> &str {
        self.inbox.get().map_or("", String::as_str)
    }

    /// Registers a request on `subject`. Returns its future answer and the subject for that answer.
    pub(super) fn expect(self: &Arc<Self>, subject: &str) -> (Reply, String) {
        self.register(|_| hash_of(subject))
    }

    /// Registers an echo: a request that is sent to the subject of its own answer.
    pub(super) fn expect_echo(self: &Arc<Self>) -> (Reply, String) {
        self.register(hash_of)
    }

    fn register(self: &Arc<Self>, subject: impl FnOnce(&str) -> u64) -> (Reply, String) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (answer, receiver) = oneshot::channel();
        let inbox = format!("{}.{number}", self.inbox());
        lock(&self.pending).insert(number, Pending { subject: subject(&inbox), answer });
        (Reply { number, receiver, replies: Arc::clone(self), answered: false }, inbox)
    }

    /// Ends all requests on a subject that the server does not permit; true if there were any.
    pub(super) fn deny(&self, denied: &Denied) -> bool {
        let subject = hash_of(&denied.subject);
        let refused: Vec<_> = lock(&self.pending)
            .extract_if(|_, pending| pending.subject == subject)
            .map(|(_, pending)| pending)
            .collect();
        let any = !refused.is_empty();
        for pending in refused {
            // An error here means that the request has timed out.
            let _ = pending.answer.send(Err(denied.clone()));
        }
        any
    }

    pub(super) async fn read(self: Arc<Self>, mut subscription: Subscriber) {
        while let Some(message) = subscription.next().await {
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            let pending = number.and_then(|number: u64| lock(&self.pending).remove(&number));
            if let Some(pending) = pending {
                // An error here means that the request has timed out.
                let _ = pending.answer.send(Ok(message));
            }
        }
        self.lose_all();
    }

    /// Ends all requests as lost.
    pub(super) fn lose_all(&self) {
        let lost = std::mem::take(&mut *lock(&self.pending));
        drop(lost);
    }
}

/// Future answer to one request.
pub(crate) struct Reply {
    number: u64,
    receiver: oneshot::Receiver<Result<Message, Denied>>,
    replies: Arc<Replies>,
    answered: bool,
}

impl Future for Reply {
    type Output = Result<Message, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.receiver).poll(context));
        self.answered = true;
        Poll::Ready(match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(denied)) => Err(Unanswered::Denied(denied)),
            Err(_) => Err(Unanswered::Lost),
        })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            lock(&self.replies.pending).remove(&self.number);
        }
    }
}
