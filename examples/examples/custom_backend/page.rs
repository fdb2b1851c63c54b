//! Pieces of lists.

use std::cmp::Reverse;

use aioq::broker::{Order, Page};

/// The rows of a page, out of all that there are.
///
/// A position says where the next page begins, not a number of rows: whatever comes and goes
/// meanwhile, nothing is shown twice or left out. All rows are sorted for it, which costs as much
/// as they are many. A database with an index by position would begin at `page.after` and read
/// `page.limit` rows.
pub fn cut<T>(mut rows: Vec<T>, page: Page, position: impl Fn(&T) -> u64) -> Vec<T> {
    match page.order {
        Order::NewestFirst => rows.sort_by_key(|row| Reverse(position(row))),
        Order::OldestFirst => rows.sort_by_key(&position),
    }
    let shows = |row: &T| match (page.order, page.after) {
        (_, None) => true,
        (Order::NewestFirst, Some(after)) => position(row) < after,
        (Order::OldestFirst, Some(after)) => position(row) > after,
    };
    rows.into_iter().filter(shows).take(page.limit).collect()
}
