//! Pages of lists that are spread over many rows.

use std::ops::Range;

use crate::broker::{Order, Page};

/// What a page shows, gathered from rows that each rise by position. It looks at few more than the page is long,
/// however many rows there are.
pub(super) struct Gathering<T> {
    page: Page,
    gathered: Vec<(u64, T)>,
    /// Nothing beyond this position is on the page.
    bound: Option<u64>,
}

impl<T> Gathering<T> {
    pub(super) fn new(page: Page) -> Self {
        Self { page, gathered: Vec::new(), bound: None }
    }

    /// The positions that may be shown.
    pub(super) fn positions(&self) -> Range<u64> {
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

    /// Takes what may be shown of a row, which is cut to the [`positions`](Self::positions).
    pub(super) fn add(&mut self, row: impl DoubleEndedIterator<Item = (u64, T)>) {
        let limit = self.page.limit;
        match self.page.order {
            Order::NewestFirst => self.gathered.extend(row.rev().take(limit)),
            Order::OldestFirst => self.gathered.extend(row.take(limit)),
        }
        if self.gathered.len() >= limit.saturating_mul(2).max(1) {
            self.cut();
        }
    }

    /// Brings what was gathered into the order of the page, and cuts it to its length.
    fn cut(&mut self) {
        match self.page.order {
            Order::NewestFirst => {
                self.gathered.sort_unstable_by_key(|(position, _)| std::cmp::Reverse(*position));
            }
            Order::OldestFirst => self.gathered.sort_unstable_by_key(|(position, _)| *position),
        }
        self.gathered.truncate(self.page.limit);
        if self.gathered.len() == self.page.limit {
            self.bound = self.gathered.last().map(|(position, _)| *position);
        }
    }

    /// The page.
    pub(super) fn finish(mut self) -> impl Iterator<Item = (u64, T)> {
        self.cut();
        self.gathered.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of a hundred rows; each holds every hundredth number.
    fn gathered(page: Page) -> (Vec<u64>, usize) {
        let (mut gathering, mut looked_at) = (Gathering::new(page), 0);
        for first in 0..100 {
            let positions = gathering.positions();
            let row: Vec<u64> =
                (first..10_000).step_by(100).filter(|number| positions.contains(number)).collect();
            gathering.add(row.into_iter().map(|number| (number, number)).inspect(|_| looked_at += 1));
        }
        (gathering.finish().map(|(_, number)| number).collect(), looked_at)
    }

    #[test]
    fn a_page_has_the_first_of_all_rows_in_its_order() {
        let (oldest, _) = gathered(Page::oldest(50).after(122));
        assert_eq!(oldest, (123..173).collect::<Vec<_>>());
        let newest = Page { order: Order::NewestFirst, after: Some(9_000), limit: 50 };
        assert_eq!(gathered(newest).0, (8_950..9_000).rev().collect::<Vec<_>>());
        assert_eq!(gathered(Page::oldest(0)).0, [0; 0]);
        assert_eq!(gathered(Page::oldest(usize::MAX)).0.len(), 10_000);
    }

    #[test]
    fn few_are_looked_at_that_are_not_on_the_page() {
        let (_, looked_at) = gathered(Page::oldest(50));
        assert!(looked_at < 500, "{looked_at} of 10,000 for 50");
    }
}
