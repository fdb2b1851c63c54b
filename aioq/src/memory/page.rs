//! Pieces of lists that are spread over several maps.

use std::ops::Range;

use crate::broker::{Order, Page};

/// The positions that a page may show.
pub(super) fn positions(page: Page) -> Range<u64> {
    match (page.order, page.after) {
        (_, None) => 0..u64::MAX,
        (Order::NewestFirst, Some(after)) => 0..after,
        (Order::OldestFirst, Some(after)) => after.saturating_add(1)..u64::MAX,
    }
}

/// Takes from rows that rise by position what a page may need of them.
pub(super) fn take<T>(
    page: Page,
    rows: impl DoubleEndedIterator<Item = (u64, T)>,
    taken: &mut Vec<(u64, T)>,
) {
    match page.order {
        Order::NewestFirst => taken.extend(rows.rev().take(page.limit)),
        Order::OldestFirst => taken.extend(rows.take(page.limit)),
    }
    // Sources may be many, a page is short.
    if taken.len() > (4 * page.limit).max(1024) {
        cut(page, taken);
    }
}

/// Brings what was taken into the order of the page, and cuts it to its length.
pub(super) fn cut<T>(page: Page, taken: &mut Vec<(u64, T)>) {
    match page.order {
        Order::NewestFirst => taken.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position)),
        Order::OldestFirst => taken.sort_unstable_by_key(|(position, _)| *position),
    }
    taken.truncate(page.limit);
}
