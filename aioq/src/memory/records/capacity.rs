//! The limit on records of ended jobs.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::PARTITIONS;

/// Limits up to this one are kept exactly, by a look at all partitions after each write.
const EXACT_LIMIT: usize = 1024;

/// The number of ended jobs whose records are kept.
///
/// Above [`EXACT_LIMIT`] each partition keeps its share of the limit, and asks no other partition.
pub(super) struct Capacity(AtomicUsize);

impl Capacity {
    pub(super) fn new(max: usize) -> Self {
        Self(AtomicUsize::new(max))
    }

    pub(super) fn set(&self, max: usize) {
        self.0.store(max, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The limit over all partitions, if it is kept exactly.
    pub(super) fn exact(&self) -> Option<usize> {
        Some(self.get()).filter(|max| *max <= EXACT_LIMIT)
    }

    /// The limit of one partition, if each keeps its share.
    pub(super) fn per_partition(&self) -> Option<usize> {
        Some(self.get()).filter(|max| *max > EXACT_LIMIT).map(|max| max.div_ceil(PARTITIONS))
    }
}
