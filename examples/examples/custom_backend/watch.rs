//! The watchers of a seam.

use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

use crate::file::lock;

/// Changes that a watcher may fall behind before it loses the oldest.
const BACKLOG: usize = 1024;

/// The watchers. A watcher that falls behind loses the oldest changes, and holds up no writer.
pub struct Watchers<T>(Mutex<Sender<T>>);

impl<T> Default for Watchers<T>
where
    T: Clone,
{
    fn default() -> Self {
        Self(Mutex::new(Sender::new(BACKLOG)))
    }
}

impl<T: Clone + Send + 'static> Watchers<T> {
    pub fn tell(&self, change: T) {
        // Without a watcher there is nothing to do.
        _ = lock(&self.0).send(change);
    }

    /// The changes from now on that `covers` accepts.
    pub fn watch(&self, covers: impl Fn(&T) -> bool + Send + 'static) -> BoxStream<'static, T> {
        let next = |mut receiver: Receiver<T>| async {
            loop {
                match receiver.recv().await {
                    Ok(change) => return Some((change, receiver)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        };
        let changes = unfold(lock(&self.0).subscribe(), next);
        changes.filter(move |change| std::future::ready(covers(change))).boxed()
    }

    /// Ends all watches.
    pub fn end(&self) {
        *lock(&self.0) = Sender::new(BACKLOG);
    }
}
