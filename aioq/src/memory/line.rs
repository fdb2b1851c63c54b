//! The messages of one queue that can be delivered, in order.

use std::collections::BTreeMap;
use std::ops::Range;

use super::places::Slot;
use crate::message::Priority;

/// By priority, then by place in line; a message that comes back finds its old place.
#[derive(Default)]
pub(super) struct Line(BTreeMap<(Priority, u64), Slot>);

impl Line {
    pub(super) fn insert(&mut self, priority: Priority, place: u64, slot: Slot) {
        self.0.insert((priority, place), slot);
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.0.pop_first().map(|(_, slot)| slot)
    }

    pub(super) fn remove(&mut self, priority: Priority, place: u64) {
        self.0.remove(&(priority, place));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The messages of each priority with these places in line, by place.
    pub(super) fn by_place(
        &self,
        places: Range<u64>,
    ) -> impl Iterator<Item = impl DoubleEndedIterator<Item = (u64, Slot)>> {
        Priority::all().map(move |priority| {
            let messages = self.0.range((priority, places.start)..(priority, places.end));
            messages.map(|((_, place), slot)| (*place, *slot))
        })
    }
}
