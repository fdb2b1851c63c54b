//! Watchers. Each receives the changes of one topic from its subscription on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

use super::Guarded;

/// The watchers of each topic.
///
/// A writer never waits for a watcher. A watcher that falls behind by more than its backlog loses
/// the oldest changes.
pub(super) struct Watchers<K, T>(HashMap<K, Sender<T>>);

impl<K, T> Default for Watchers<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, T: Clone> Watchers<K, T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The watched topics.
    pub(super) fn topics(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    pub(super) fn subscribe(&mut self, topic: K, backlog: usize) -> Receiver<T> {
        self.0.entry(topic).or_insert_with(|| Sender::new(backlog)).subscribe()
    }

    pub(super) fn send(&self, topic: &K, change: &T) {
        if let Some(sender) = self.0.get(topic) {
            // An error means that the last watcher was just dropped.
            _ = sender.send(change.clone());
        }
    }

    fn forget_unwatched(&mut self, topic: &K) {
        if self.0.get(topic).is_some_and(|sender| sender.receiver_count() == 0) {
            self.0.remove(topic);
        }
    }
}

/// Content with watchers.
pub(super) trait Watchable: Send + 'static {
    type Topic: Eq + Hash + Send + 'static;
    type Change: Clone + Send + 'static;

    fn watchers(&mut self) -> &mut Watchers<Self::Topic, Self::Change>;
}

/// Shuts a store down, and ends the streams of its watchers.
pub(super) fn shutdown<W: Watchable>(store: &Guarded<W>) {
    let mut guard = store.lock();
    guard.started = false;
    guard.content.watchers().0.clear();
}

/// The changes that `receiver` gets, until the store is shut down.
pub(super) fn stream<W: Watchable>(
    store: Arc<Guarded<W>>,
    topic: W::Topic,
    receiver: Receiver<W::Change>,
) -> BoxStream<'static, W::Change> {
    let watch = Watch { store, topic, receiver: Some(receiver) };
    let next = |mut watch: Watch<W>| async move { watch.next().await.map(|change| (change, watch)) };
    unfold(watch, next).boxed()
}

struct Watch<W: Watchable> {
    store: Arc<Guarded<W>>,
    topic: W::Topic,
    /// Dropped before the watchers are counted.
    receiver: Option<Receiver<W::Change>>,
}

impl<W: Watchable> Watch<W> {
    async fn next(&mut self) -> Option<W::Change> {
        let receiver = self.receiver.as_mut()?;
        loop {
            match receiver.recv().await {
                Ok(change) => return Some(change),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl<W: Watchable> Drop for Watch<W> {
    fn drop(&mut self) {
        self.receiver = None;
        self.store.lock().content.watchers().forget_unwatched(&self.topic);
    }
}
