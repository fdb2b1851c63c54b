//! The messages of one queue that can be delivered, in order.

use smallvec::SmallVec;

use super::series::{Series, Slot};
use crate::broker::Page;
use crate::message::Priority;

/// By priority, then by place in line; a message that comes back finds its old place.
#[derive(Default)]
pub(super) struct Line {
    /// Most queues know one priority.
    rows: SmallVec<[(Priority, Series); 1]>,
}

impl Line {
    pub(super) fn insert(&mut self, priority: Priority, place: u64, slot: Slot) {
        let index = match self.rows.binary_search_by_key(&priority, |(priority, _)| *priority) {
            Ok(index) => index,
            Err(index) => {
                self.rows.insert(index, (priority, Series::default()));
                index
            }
        };
        self.rows[index].1.insert(place, slot);
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.rows.iter_mut().find_map(|(_, row)| row.pop())
    }

    pub(super) fn remove(&mut self, priority: Priority, place: u64) {
        if let Some((_, row)) = self.rows.iter_mut().find(|(other, _)| *other == priority) {
            row.remove(place);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.iter().all(|(_, row)| row.is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.iter().map(|(_, row)| row.len()).sum()
    }

    /// The first message of each priority.
    pub(super) fn firsts(&self) -> impl Iterator<Item = Slot> {
        self.rows.iter().filter_map(|(_, row)| row.first())
    }

    /// Takes what a page may need, by place in line.
    pub(super) fn page(&self, page: Page, taken: &mut Vec<(u64, Slot)>) {
        for (_, row) in &self.rows {
            row.page(page, Some, taken);
        }
    }
}
