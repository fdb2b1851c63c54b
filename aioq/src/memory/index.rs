//! Ordered indexes of slots, and the pages that are read from them.

mod ordered_slots;
mod page;
mod ranked_slots;

pub(super) use self::ordered_slots::{OrderedSlots, Slot, slot};
pub(super) use self::page::PageBuilder;
pub(super) use self::ranked_slots::RankedSlots;
