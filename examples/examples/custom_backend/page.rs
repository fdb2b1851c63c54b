//! Pages of lists.

use std::cmp::Reverse;

use aioq::broker::{Order, Page};

/// The rows of a page, out of all rows.
///
/// A position is the place of a row and not a number of rows, so no row is shown twice or left out
/// while others come and go. All rows are sorted for each page, which costs time in proportion to
/// their number. A database with an index by position would begin at `page.after` and read
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
