//! Slots by rank, and by number within one.

use smallvec::SmallVec;

use super::series::{Series, Slot};

/// Slots in the order of their ranks, and of their numbers within one: a queue's messages by priority and place in
/// line, or its records by status and revision.
pub(super) struct Ranked<R> {
    /// Most of the time there is one rank.
    rows: SmallVec<[(R, Series); 1]>,
}

impl<R> Default for Ranked<R> {
    fn default() -> Self {
        Self { rows: SmallVec::new() }
    }
}

impl<R: Copy + Ord> Ranked<R> {
    pub(super) fn insert(&mut self, rank: R, number: u64, slot: Slot) {
        let index = match self.index(rank) {
            Ok(index) => index,
            Err(index) => {
                self.rows.insert(index, (rank, Series::default()));
                index
            }
        };
        self.rows[index].1.insert(number, slot);
    }

    fn index(&self, rank: R) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&rank, |(rank, _)| *rank)
    }

    /// Takes out the slot with the lowest rank, and of those the one with the lowest number.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.rows.iter_mut().find_map(|(_, row)| row.pop())
    }

    pub(super) fn remove(&mut self, rank: R, number: u64) {
        if let Ok(index) = self.index(rank) {
            self.rows[index].1.remove(number);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|(_, row)| row.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.iter().map(|(_, row)| row.len()).sum()
    }

    /// The ranks, each with its slots.
    pub(super) fn rows(&self) -> impl Iterator<Item = (R, &Series)> {
        self.rows.iter().map(|(rank, row)| (*rank, row))
    }
}
