//! Inboxes that threads push operations to without waiting for each other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::memory::ordered_ids::OrderedIds;
use crate::sync::{CachePadded, Lock, PerThread, THREADS};

/// Number of items in the inbox of a thread from which on `push` asks for a drain.
const FULL: usize = 64;

/// Per-thread inboxes for kicks and acks.
///
/// The state of the broker is behind one lock. A thread pushes its operation here instead of
/// waiting for that lock. The thread that takes the lock drains all inboxes first, so a reader of
/// the state never misses a pushed operation. While a listener or watcher waits for changes, `push`
/// asks for a drain at once.
pub(super) struct Inbox<T> {
    threads: PerThread<Lock<ThreadInbox<T>>>,
    /// Threads with a nonempty inbox, one bit for each.
    nonempty: CachePadded<AtomicU32>,
    flags: CachePadded<Flags>,
}

struct ThreadInbox<T> {
    ids: OrderedIds,
    items: Vec<T>,
}

/// Read by each push, written seldom.
#[derive(Default)]
struct Flags {
    open: AtomicBool,
    awaited: AtomicBool,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        let inbox = |index| Lock::new(ThreadInbox { ids: OrderedIds::new(index), items: Vec::new() });
        Self {
            threads: PerThread::new(inbox),
            nonempty: CachePadded::default(),
            flags: CachePadded::default(),
        }
    }

    /// True if operations may be pushed.
    pub(super) fn is_open(&self) -> bool {
        self.flags.open.load(Ordering::Acquire)
    }

    pub(super) fn set_open(&self, open: bool) {
        self.flags.open.store(open, Ordering::Release);
    }

    /// Pushes an item, made from the ids of its thread. Returns true if the inboxes must be drained
    /// at once.
    pub(super) fn push(&self, item: impl FnOnce(&mut OrderedIds) -> T) -> bool {
        let (index, own) = self.threads.own();
        let full = {
            let mut inbox = own.lock();
            let item = item(&mut inbox.ids);
            inbox.items.push(item);
            inbox.items.len() >= FULL
        };
        let bit = 1 << index;
        if self.nonempty.load(Ordering::SeqCst) & bit == 0 {
            self.nonempty.fetch_or(bit, Ordering::SeqCst);
        }
        // Ordering: set the bit, then read `awaited`. `set_awaited` stores `awaited` before a drain
        // reads the bits, so at least one side sees the other.
        full || self.flags.awaited.load(Ordering::SeqCst)
    }

    /// Sets whether a listener or watcher waits for changes. Returns true if that is new: drain
    /// once more then.
    pub(super) fn set_awaited(&self, awaited: bool) -> bool {
        if self.flags.awaited.load(Ordering::Relaxed) == awaited {
            return false;
        }
        self.flags.awaited.store(awaited, Ordering::SeqCst);
        awaited
    }

    /// Moves all items into `into`, each thread's in their order. Returns true if there were any.
    pub(super) fn drain(&self, into: &mut Vec<T>) -> bool {
        if self.nonempty.load(Ordering::SeqCst) == 0 {
            return false;
        }
        // Cleared before the inboxes are read: an item that is pushed later sets its bit again.
        let nonempty = self.nonempty.swap(0, Ordering::SeqCst);
        for (index, inbox) in self.threads.all().iter().enumerate() {
            if nonempty & (1 << index) != 0 {
                into.append(&mut inbox.lock().items);
            }
        }
        !into.is_empty()
    }
}

/// The ids of operations that do not go through an inbox.
pub(super) fn direct_ids() -> OrderedIds {
    OrderedIds::new(THREADS)
}
