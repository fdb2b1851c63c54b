//! What each thread has to itself: memory that several processors write goes back and forth between them.

use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use crossbeam_utils::CachePadded;

/// How many there are of what each thread has; threads beyond that share.
pub(crate) const THREADS: usize = 16;

/// One for each thread.
#[derive(Default)]
pub(crate) struct PerThread<T>([CachePadded<T>; THREADS]);

impl<T> PerThread<T> {
    /// Makes each by its number.
    pub(crate) fn new(mut make: impl FnMut(usize) -> T) -> Self {
        Self(std::array::from_fn(|number| CachePadded::new(make(number))))
    }

    /// That of this thread, and its number.
    pub(crate) fn own(&self) -> (usize, &T) {
        let number = number();
        (number, &self.0[number])
    }

    /// All of them, by their numbers.
    pub(crate) fn all(&self) -> &[CachePadded<T>; THREADS] {
        &self.0
    }
}

/// The number of this thread.
fn number() -> usize {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = STARTED.fetch_add(1, Ordering::Relaxed) % THREADS;
    }
    // A thread that ends has none any more.
    OWN.try_with(|own| *own).unwrap_or(0)
}
