//! Boxes where threads leave things without waiting for each other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stamp::Stamps;
use crate::threads::{CachePadded, PerThread, THREADS};

/// When a box is to be emptied, whether anybody looks or not.
const FULL: usize = 64;

/// Boxes where threads leave things, each in one of its own. Whoever looks at what the things are for empties all
/// boxes first, so that nobody sees that something lay there. Who waits says so, and is told at once.
pub(super) struct Boxes<T> {
    boxes: PerThread<Mutex<Content<T>>>,
    /// Which boxes have something in them, a bit for each.
    filled: CachePadded<AtomicU32>,
    signs: CachePadded<Signs>,
}

struct Content<T> {
    stamps: Stamps,
    things: Vec<T>,
}

/// Read each time, written seldom.
#[derive(Default)]
struct Signs {
    open: AtomicBool,
    awaited: AtomicBool,
}

impl<T> Boxes<T> {
    pub(super) fn new() -> Self {
        let content = |number| Mutex::new(Content { stamps: Stamps::of(number), things: Vec::new() });
        Self { boxes: PerThread::new(content), filled: CachePadded::default(), signs: CachePadded::default() }
    }

    /// The numbers of what does not come by a box.
    pub(super) fn stamps() -> Stamps {
        Stamps::of(THREADS)
    }

    /// Whether things may be left here.
    pub(super) fn is_open(&self) -> bool {
        self.signs.open.load(Ordering::Acquire)
    }

    pub(super) fn set_open(&self, open: bool) {
        self.signs.open.store(open, Ordering::Release);
    }

    /// Leaves a thing, which gets a number. Whether the boxes are to be emptied at once.
    pub(super) fn leave(&self, thing: impl FnOnce(&mut Stamps) -> T) -> bool {
        let (number, own) = self.boxes.own();
        let full = {
            let mut content = lock(own);
            let thing = thing(&mut content.stamps);
            content.things.push(thing);
            content.things.len() >= FULL
        };
        let bit = 1 << number;
        if self.filled.load(Ordering::SeqCst) & bit == 0 {
            self.filled.fetch_or(bit, Ordering::SeqCst);
        }
        // After the bit is set: either this sees that somebody waits, or who says so afterwards sees the bit.
        full || self.signs.awaited.load(Ordering::SeqCst)
    }

    /// Says whether somebody waits. If that is new, the boxes are to be emptied once more.
    pub(super) fn set_awaited(&self, awaited: bool) -> bool {
        if self.signs.awaited.load(Ordering::Relaxed) == awaited {
            return false;
        }
        self.signs.awaited.store(awaited, Ordering::SeqCst);
        awaited
    }

    /// Moves all things from the boxes, those of one thread in their order; whether there were any.
    pub(super) fn empty(&self, into: &mut Vec<T>) -> bool {
        if self.filled.load(Ordering::SeqCst) == 0 {
            return false;
        }
        // Before the boxes are looked into: what comes after the look sets its bit again.
        let filled = self.filled.swap(0, Ordering::SeqCst);
        for (number, content) in self.boxes.all().iter().enumerate() {
            if filled & (1 << number) != 0 {
                into.append(&mut lock(content).things);
            }
        }
        !into.is_empty()
    }
}

fn lock<T>(content: &Mutex<Content<T>>) -> MutexGuard<'_, Content<T>> {
    // Nothing panics while it is locked, but for want of memory.
    content.lock().unwrap_or_else(PoisonError::into_inner)
}
