//! The state of the storage, as a worker knows it: [`Storage`].

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::Error;

/// Counts the jobs that cannot be saved because the storage is full.
///
/// While there is one, the worker starts no job: its end could not be saved either, and it would
/// run a second time.
#[derive(Default)]
pub(super) struct Storage {
    unsaved: AtomicUsize,
    freed: Notify,
}

impl Storage {
    /// True while a job waits for room.
    pub(super) fn is_full(&self) -> bool {
        self.unsaved.load(Ordering::Acquire) > 0
    }

    /// Resolves when no job waits for room; at once if none does.
    pub(super) async fn has_room(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }

    /// Resolves when the last waiting job has been saved.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Counts a job that waits for room until the guard is dropped.
    pub(super) fn wait(&self, error: &Error) -> Unsaved<'_> {
        if self.unsaved.fetch_add(1, Ordering::AcqRel) == 0 {
            tracing::warn!(%error, "the storage is full: results cannot be saved, and no job is started until there is room");
        }
        Unsaved { storage: self, is_saved: AtomicBool::new(false) }
    }
}

/// A job that waits for room.
pub(super) struct Unsaved<'a> {
    storage: &'a Storage,
    is_saved: AtomicBool,
}

impl Unsaved<'_> {
    /// Records that the job was saved.
    pub(super) fn saved(&self) {
        self.is_saved.store(true, Ordering::Relaxed);
    }
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        if self.storage.unsaved.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.is_saved.load(Ordering::Relaxed) {
                tracing::info!("the storage has room again: jobs are started");
            }
            self.storage.freed.notify_waiters();
        }
    }
}
