//! Pages of lists that are spread over many rows.

use std::ops::Range;

use crate::broker::{Order, Page};

/// Builds a page from rows that each rise by position. Reads few more items than the page has, for
/// any number of rows.
pub(in crate::memory) struct PageBuilder<T> {
    page: Page,
    items: Vec<(u64, T)>,
    /// Last position that can be on the page.
    bound: Option<u64>,
}

impl<T> PageBuilder<T> {
    pub(in crate::memory) fn new(page: Page) -> Self {
        Self { page, items: Vec::new(), bound: None }
    }

    /// The positions that can be on the page.
    pub(in crate::memory) fn positions(&self) -> Range<u64> {
        let Page { order, after, .. } = self.page;
        let (start, end) = match (order, after) {
            (_, None) => (0, u64::MAX),
            (Order::NewestFirst, Some(after)) => (0, after),
            (Order::OldestFirst, Some(after)) => (after.saturating_add(1), u64::MAX),
        };
        match (order, self.bound) {
            (_, None) => start..end,
            (Order::NewestFirst, Some(bound)) => bound..end.max(bound),
            (Order::OldestFirst, Some(bound)) => start..bound.max(start),
        }
    }

    /// Adds a row, which the caller has cut to the [`positions`](Self::positions).
    pub(in crate::memory) fn add(&mut self, row: impl DoubleEndedIterator<Item = (u64, T)>) {
        let limit = self.page.limit;
        match self.page.order {
            Order::NewestFirst => self.items.extend(row.rev().take(limit)),
            Order::OldestFirst => self.items.extend(row.take(limit)),
        }
        if self.items.len() >= limit.saturating_mul(2).max(1) {
            self.cut();
        }
    }

    /// Sorts the items in the order of the page, and cuts them to its length.
    fn cut(&mut self) {
        match self.page.order {
            Order::NewestFirst => {
                self.items.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
            }
            Order::OldestFirst => self.items.sort_unstable_by_key(|(position, _)| *position),
        }
        self.items.truncate(self.page.limit);
        if self.items.len() == self.page.limit {
            self.bound = self.items.last().map(|(position, _)| *position);
        }
    }

    /// The page.
    pub(in crate::memory) fn finish(mut self) -> impl Iterator<Item = (u64, T)> {
        self.cut();
        self.items.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of a hundred rows; each holds every hundredth number.
    fn items(page: Page) -> (Vec<u64>, usize) {
        let (mut builder, mut read) = (PageBuilder::new(page), 0);
        for first in 0..100 {
            let positions = builder.positions();
            let row: Vec<u64> =
                (first..10_000).step_by(100).filter(|number| positions.contains(number)).collect();
            builder.add(row.into_iter().map(|number| (number, number)).inspect(|_| read += 1));
        }
        (builder.finish().map(|(_, number)| number).collect(), read)
    }

    #[test]
    fn a_page_has_the_first_of_all_rows_in_its_order() {
        let (oldest, _) = items(Page::oldest(50).after(122));
        assert_eq!(oldest, (123..173).collect::<Vec<_>>());
        let newest = Page { order: Order::NewestFirst, after: Some(9_000), limit: 50 };
        assert_eq!(items(newest).0, (8_950..9_000).rev().collect::<Vec<_>>());
        assert_eq!(items(Page::oldest(0)).0, [0; 0]);
        assert_eq!(items(Page::oldest(usize::MAX)).0.len(), 10_000);
    }

    #[test]
    fn few_items_are_read_that_are_not_on_the_page() {
        let (_, read) = items(Page::oldest(50));
        assert!(read < 500, "{read} of 10,000 for 50");
    }
}
