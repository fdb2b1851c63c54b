//! Locks, and memory that each thread has to itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use crossbeam_utils::CachePadded;

/// A mutex that ignores poisoning.
///
/// The locked sections of this crate run no foreign code, and panic only if memory runs out. A
/// value that outlives such a panic is usable: no invariant spans two steps that can fail in
/// between.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read-write lock that ignores poisoning, for the reason that [`Lock`] gives.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Number of values in a [`PerThread`]. Threads beyond that number share them.
pub(crate) const THREADS: usize = 16;

/// One value for each thread, so that cores do not contend on one cache line.
#[derive(Default)]
pub(crate) struct PerThread<T>([CachePadded<T>; THREADS]);

impl<T> PerThread<T> {
    /// Makes each value from its index.
    pub(crate) fn new(mut make: impl FnMut(usize) -> T) -> Self {
        Self(std::array::from_fn(|index| CachePadded::new(make(index))))
    }

    /// The value of this thread, with its index.
    pub(crate) fn own(&self) -> (usize, &T) {
        let index = thread_index();
        (index, &self.0[index])
    }

    /// The values of all threads.
    pub(crate) fn all(&self) -> &[CachePadded<T>; THREADS] {
        &self.0
    }
}

fn thread_index() -> usize {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = STARTED.fetch_add(1, Ordering::Relaxed) % THREADS;
    }
    // Thread-local values are gone while a thread ends.
    OWN.try_with(|own| *own).unwrap_or(0)
}
