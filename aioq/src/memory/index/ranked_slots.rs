//! Slots ordered by rank, then by number.

use smallvec::SmallVec;

use super::ordered_slots::{OrderedSlots, Slot};

/// Slots ordered by rank, then by number: the messages of a queue by priority and place in line, or
/// its records by status and revision.
pub(in crate::memory) struct RankedSlots<R> {
    /// Mostly there is one rank.
    rows: SmallVec<[(R, OrderedSlots); 1]>,
}

impl<R> Default for RankedSlots<R> {
    fn default() -> Self {
        Self { rows: SmallVec::new() }
    }
}

impl<R: Copy + Ord> RankedSlots<R> {
    pub(in crate::memory) fn insert(&mut self, rank: R, number: u64, slot: Slot) {
        let index = match self.index(rank) {
            Ok(index) => index,
            Err(index) => {
                self.rows.insert(index, (rank, OrderedSlots::default()));
                index
            }
        };
        self.rows[index].1.insert(number, slot);
    }

    fn index(&self, rank: R) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&rank, |(rank, _)| *rank)
    }

    /// Removes the slot with the lowest rank, then the lowest number.
    pub(in crate::memory) fn pop(&mut self) -> Option<Slot> {
        self.rows.iter_mut().find_map(|(_, row)| row.pop())
    }

    pub(in crate::memory) fn remove(&mut self, rank: R, number: u64) {
        if let Ok(index) = self.index(rank) {
            self.rows[index].1.remove(number);
        }
    }

    pub(in crate::memory) fn is_empty(&self) -> bool {
        self.rows.iter().all(|(_, row)| row.is_empty())
    }

    pub(in crate::memory) fn len(&self) -> usize {
        self.rows.iter().map(|(_, row)| row.len()).sum()
    }

    /// The ranks, each with its slots.
    pub(in crate::memory) fn rows(&self) -> impl Iterator<Item = (R, &OrderedSlots)> {
        self.rows.iter().map(|(rank, row)| (*rank, row))
    }
}
