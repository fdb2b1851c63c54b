//! The messages of one queue that can be delivered, in order.

use std::collections::BTreeMap;

use crate::message::{JobId, Priority};

/// By priority, then by place in line; a message that comes back finds its old place.
#[derive(Default)]
pub(super) struct Line(BTreeMap<(Priority, u64), JobId>);

impl Line {
    pub(super) fn insert(&mut self, priority: Priority, place: u64, id: JobId) {
        self.0.insert((priority, place), id);
    }

    pub(super) fn pop(&mut self) -> Option<JobId> {
        self.0.pop_first().map(|(_, id)| id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
