//! Boxes where threads leave things without waiting for each other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::stamp::Stamps;

/// How many there are. Threads beyond that share some.
const BOXES: usize = 16;

/// When a box is to be emptied, whether anybody looks or not.
const FULL: usize = 64;

/// Boxes where threads leave things, each in one of its own. Whoever looks at what the things are for empties all
/// boxes first, so that nobody sees that something lay there. Who waits says so, and is told at once.
pub(super) struct Boxes<T> {
    boxes: [Aligned<Mutex<Content<T>>>; BOXES],
    /// Which boxes have something in them, a bit for each.
    filled: Aligned<AtomicU32>,
    signs: Aligned<Signs>,
}

/// On cache lines of its own: what one thread writes, others need not fetch again.
#[repr(align(128))]
struct Aligned<T>(T);

struct Content<T> {
    stamps: Stamps,
    things: Vec<T>,
}

/// Read each time, written seldom.
struct Signs {
    open: AtomicBool,
    awaited: AtomicBool,
}

thread_local! {
    /// The box of this thread.
    static OWN: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % BOXES
    };
}

impl<T> Boxes<T> {
    pub(super) fn new() -> Self {
        let content = |index| Aligned(Mutex::new(Content { stamps: Stamps::of(index), things: Vec::new() }));
        Self {
            boxes: std::array::from_fn(content),
            filled: Aligned(AtomicU32::new(0)),
            signs: Aligned(Signs { open: AtomicBool::new(false), awaited: AtomicBool::new(false) }),
        }
    }

    /// The numbers of what does not come by a box.
    pub(super) fn stamps() -> Stamps {
        Stamps::of(BOXES)
    }

    /// Whether things may be left here.
    pub(super) fn is_open(&self) -> bool {
        self.signs.0.open.load(Ordering::Acquire)
    }

    pub(super) fn set_open(&self, open: bool) {
        self.signs.0.open.store(open, Ordering::Release);
    }

    /// Leaves a thing, which `now` numbers. Whether the boxes are to be emptied at once.
    pub(super) fn leave(&self, now: Instant, thing: impl FnOnce(u64) -> T) -> bool {
        // A thread that ends has no number any more.
        let index = OWN.try_with(|own| *own).unwrap_or(0);
        let full = {
            let mut content = lock(&self.boxes[index].0);
            let number = content.stamps.next(now);
            content.things.push(thing(number));
            content.things.len() >= FULL
        };
        let bit = 1 << index;
        if self.filled.0.load(Ordering::SeqCst) & bit == 0 {
            self.filled.0.fetch_or(bit, Ordering::SeqCst);
        }
        // After the bit is set: either this sees that somebody waits, or who says so afterwards sees the bit.
        full || self.signs.0.awaited.load(Ordering::SeqCst)
    }

    /// Says whether somebody waits. If that is new, the boxes are to be emptied once more.
    pub(super) fn set_awaited(&self, awaited: bool) -> bool {
        if self.signs.0.awaited.load(Ordering::Relaxed) == awaited {
            return false;
        }
        self.signs.0.awaited.store(awaited, Ordering::SeqCst);
        awaited
    }

    /// Moves all things from the boxes, those of one thread in their order; whether there were any.
    pub(super) fn empty(&self, into: &mut Vec<T>) -> bool {
        if self.filled.0.load(Ordering::SeqCst) == 0 {
            return false;
        }
        // Before the boxes are looked into: what comes after the look sets its bit again.
        let filled = self.filled.0.swap(0, Ordering::SeqCst);
        for index in (0..BOXES).filter(|index| filled & (1 << index) != 0) {
            into.append(&mut lock(&self.boxes[index].0).things);
        }
        !into.is_empty()
    }
}

fn lock<T>(content: &Mutex<Content<T>>) -> MutexGuard<'_, Content<T>> {
    // Nothing panics while it is locked, but for want of memory.
    content.lock().unwrap_or_else(PoisonError::into_inner)
}
