//! Pages of a stream's messages, oldest or newest first: [`Listing`].
//!
//! A stream can only be read upwards. So the newest messages ("rows") are found in windows of
//! sequences, each below the one before. There are three ways to read a window:
//! - *Short*: sequence by sequence, many requests at a time. The cost does not depend on the size
//!   of the stream, whereas a batch makes the server count all matches (8 ms for 100,000 subjects).
//! - *Long*: one batch, as long as the number of rows that the server counts in the window.
//! - *Empty*: a search by halves for the next row below.

use std::future::ready;
use std::time::Duration;

use aioq::Result;
use aioq::broker::{Order, Page};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::batch::{self, Batch};
use super::get::{self, StoredMessage, by_sequence, last_sequence, next};
use crate::link::{Deadline, Link};
use crate::wire::subject::matches;

/// Largest window that is read sequence by sequence.
const SHORT: u64 = 512;

/// Number of such reads at a time.
const CONCURRENT_READS: usize = 64;

/// Largest number of rows that a window is made for.
const MAX_ROWS: usize = 250;

/// Messages of a stream whose subjects match a filter.
pub(crate) struct Listing<'a> {
    pub(crate) link: &'a Link,
    /// Time limit of each request.
    pub(crate) timeout: Duration,
    pub(crate) stream: &'a str,
    /// Filter, with `*` for any one token.
    pub(crate) filter: &'a str,
}

impl Listing<'_> {
    /// Messages of a page. It has fewer than its limit only at the end of the stream.
    pub(crate) async fn page(&self, page: Page) -> Result<Vec<StoredMessage>> {
        match page.order {
            _ if page.limit == 0 => Ok(Vec::new()),
            Order::NewestFirst => self.newest(page.after, page.limit).await,
            Order::OldestFirst => {
                let first = page.after.map_or(1, |after| after.saturating_add(1));
                self.oldest(first, page.limit).await
            }
        }
    }

    async fn oldest(&self, mut first: u64, limit: usize) -> Result<Vec<StoredMessage>> {
        let mut rows = Vec::new();
        loop {
            let batch = self.batch(first, (limit - rows.len()).min(batch::MAX_MESSAGES)).await?;
            rows.extend(batch.messages);
            match rows.last() {
                Some(last) if batch.more && rows.len() < limit => first = last.sequence + 1,
                _ => return Ok(rows),
            }
        }
    }

    async fn newest(&self, below: Option<u64>, limit: usize) -> Result<Vec<StoredMessage>> {
        let end = last_sequence(self.link, self.deadline(), self.stream).await? + 1;
        let end = below.map_or(end, |below| below.min(end));
        let mut descent = Descent::new(end, limit.min(MAX_ROWS));
        let mut rows = Vec::new();
        while rows.len() < limit && descent.high > 1 {
            let wanted = (limit - rows.len()).min(MAX_ROWS);
            let Some((low, found)) = self.window(&mut descent, wanted).await? else { continue };
            match found.len() {
                0 => match self.newest_row(low).await? {
                    Some(row) => descent.jump(row + 1),
                    None => break,
                },
                count => descent.advance(low, count, wanted),
            }
            rows.extend(found);
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Reads the next window: its lower end and its rows, newest first. `None` if it holds too many
    /// rows.
    async fn window(
        &self,
        descent: &mut Descent,
        wanted: usize,
    ) -> Result<Option<(u64, Vec<StoredMessage>)>> {
        let (low, high) = (descent.low(), descent.high);
        if high - low <= SHORT {
            return self.walk(low, high, wanted).await.map(Some);
        }
        let above = match descent.above {
            Some(above) => above,
            None => self.count(high).await?,
        };
        let inside = self.count(low).await?.saturating_sub(above);
        if inside > max_rows(wanted) {
            descent.retreat(low, above, inside, wanted);
            return Ok(None);
        }
        descent.above = Some(above + inside);
        self.read(low, high, inside as usize).await.map(|rows| Some((low, rows)))
    }

    /// Reads downwards, sequence by sequence, until `wanted` rows are found. Returns the lowest
    /// sequence read and the rows.
    async fn walk(&self, low: u64, high: u64, wanted: usize) -> Result<(u64, Vec<StoredMessage>)> {
        let reads = (low..high).rev().map(|sequence| async move {
            by_sequence(self.link, self.deadline(), self.stream, sequence).await
        });
        let matching = stream::iter(reads).buffered(CONCURRENT_READS).try_filter_map(|message| {
            ready(Ok(message.filter(|message| matches(self.filter, &message.subject))))
        });
        let rows: Vec<_> = matching.take(wanted).try_collect().await?;
        Ok(match rows.last() {
            Some(last) if rows.len() == wanted => (last.sequence, rows),
            _ => (low, rows),
        })
    }

    /// All rows from `low` to `high`, newest first: `expected` of them, unless messages come or go
    /// meanwhile.
    async fn read(&self, mut low: u64, high: u64, expected: usize) -> Result<Vec<StoredMessage>> {
        let mut rows = Vec::new();
        loop {
            // One row more than expected shows the end of the window; each further one costs the
            // server a search. At least 32, so that a window with more rows than counted is not
            // read one by one.
            let limit = expected.saturating_sub(rows.len()).clamp(32, batch::MAX_MESSAGES - 1) + 1;
            let batch = self.batch(low, limit).await?;
            rows.extend(batch.messages);
            match rows.last() {
                Some(last) if batch.more && last.sequence + 1 < high => low = last.sequence + 1,
                _ => break,
            }
        }
        rows.retain(|row| row.sequence < high);
        rows.reverse();
        Ok(rows)
    }

    /// Sequence of the newest row below `high`, searched by halves. Each step reads one row, for
    /// which the server need not count.
    async fn newest_row(&self, high: u64) -> Result<Option<u64>> {
        let (mut empty, mut span) = (high, SHORT);
        let mut row = loop {
            let low = high.saturating_sub(span).max(1);
            match self.first_row(low, empty).await? {
                Some(row) => break row,
                None if low == 1 => return Ok(None),
                None => (empty, span) = (low, span.saturating_mul(8)),
            }
        };
        while row + 1 < empty {
            let middle = row + 1 + (empty - row - 1) / 2;
            match self.first_row(middle, empty).await? {
                Some(later) => row = later,
                None => empty = middle,
            }
        }
        Ok(Some(row))
    }

    async fn first_row(&self, low: u64, high: u64) -> Result<Option<u64>> {
        let found = next(self.link, self.deadline(), self.stream, self.filter, low).await?;
        Ok(found.map(|found| found.sequence).filter(|sequence| *sequence < high))
    }

    /// Number of rows from a sequence on.
    async fn count(&self, from: u64) -> Result<u64> {
        get::count(self.link, self.deadline(), self.stream, self.filter, from).await
    }

    async fn batch(&self, from: u64, limit: usize) -> Result<Batch> {
        batch::read(self.link, self.deadline(), self.stream, self.filter, from, limit).await
    }

    fn deadline(&self) -> Deadline {
        Deadline::within(self.timeout)
    }
}

/// Largest number of rows to accept in a window that is made for `wanted` rows.
fn max_rows(wanted: usize) -> u64 {
    (4 * wanted as u64).max(32)
}

/// Position of the next window.
#[derive(Debug)]
struct Descent {
    /// Lowest sequence read so far.
    high: u64,
    /// Number of rows from `high` on, if counted.
    above: Option<u64>,
    /// Lower end of a window up to `high` that held too many rows; 0 if none did.
    crowded: u64,
    /// Number of sequences in the next window.
    span: u64,
}

impl Descent {
    fn new(high: u64, wanted: usize) -> Self {
        Self { high, above: None, crowded: 0, span: (2 * wanted as u64).max(64) }
    }

    /// Lower end of the next window, at least 1.
    fn low(&self) -> u64 {
        let low = self.high.saturating_sub(self.span).max(1);
        if self.crowded == 0 || self.crowded >= self.high {
            return low;
        }
        // At most half of the crowded window, so that windows shrink even if the estimate is wrong.
        let half = (self.high - self.crowded).div_ceil(2);
        low.max(self.high - half)
    }

    /// Skips to `high`: there are no rows from there to the former position.
    fn jump(&mut self, high: u64) {
        self.high = high;
    }

    /// Notes that the window from `low` on was read and held `found` of the wanted rows.
    fn advance(&mut self, low: u64, found: usize, wanted: usize) {
        let seen = self.high - low;
        self.high = low;
        if seen <= SHORT {
            // The window was read without a count.
            self.above = None;
        }
        if found < wanted {
            let longest = self.span.saturating_mul(8);
            self.span = spread(seen, found as u64, wanted - found).min(longest);
        }
    }

    /// Notes that the window from `low` on holds too many rows, `inside`, and that there are
    /// `above` from `high` on.
    fn retreat(&mut self, low: u64, above: u64, inside: u64, wanted: usize) {
        self.above = Some(above);
        self.crowded = low;
        self.span = spread(self.high - low, inside, wanted);
    }
}

/// Number of sequences that should hold twice the wanted rows, if `seen` sequences hold `found`.
fn spread(seen: u64, found: u64, wanted: usize) -> u64 {
    let twice = seen.saturating_mul(2).saturating_mul(wanted as u64);
    (twice / found.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages through `rows` like [`Listing::newest`]. Returns the rows found and the number of
    /// windows.
    fn page(rows: &[u64], end: u64, limit: usize) -> (Vec<u64>, usize) {
        let mut descent = Descent::new(end, limit.min(MAX_ROWS));
        let (mut found, mut windows) = (Vec::new(), 0);
        while found.len() < limit && descent.high > 1 {
            let wanted = (limit - found.len()).min(MAX_ROWS);
            let (low, high) = (descent.low(), descent.high);
            assert!((1..high).contains(&low), "{descent:?}");
            windows += 1;
            let inside: Vec<u64> = rows.iter().copied().filter(|row| (low..high).contains(row)).collect();
            let is_short = high - low <= SHORT;
            if !is_short && inside.len() as u64 > max_rows(wanted) {
                descent.retreat(low, 0, inside.len() as u64, wanted);
                continue;
            }
            match (inside.is_empty(), rows.iter().rfind(|row| **row < low)) {
                (true, None) => break,
                (true, Some(row)) => descent.jump(row + 1),
                (false, _) => {
                    let taken = if is_short { inside.len().min(wanted) } else { inside.len() };
                    found.extend(inside.iter().rev().take(taken));
                    let low = if taken >= wanted && is_short { inside[inside.len() - taken] } else { low };
                    descent.advance(low, taken, wanted);
                }
            }
        }
        found.truncate(limit);
        (found, windows)
    }

    fn check(rows: &[u64], end: u64, limit: usize, max_windows: usize) {
        let (found, windows) = page(rows, end, limit);
        let expected: Vec<u64> = rows.iter().rev().copied().filter(|row| *row < end).take(limit).collect();
        assert_eq!(found, expected);
        assert!(windows <= max_windows, "{windows} windows for {limit} of {} rows", rows.len());
    }

    #[test]
    fn a_page_takes_few_windows() {
        let dense: Vec<u64> = (1..=100_000).collect();
        let sparse: Vec<u64> = (1..=100_000).filter(|row| row % 1000 == 7).collect();
        for limit in [1, 50, 250, 1000] {
            check(&dense, 100_001, limit, limit.div_ceil(MAX_ROWS));
            check(&dense, 5_000, limit, limit.div_ceil(MAX_ROWS));
            check(&sparse, 100_001, limit.min(50), 8);
            check(&sparse, 50_001, limit.min(50), 8);
        }
        check(&[], 1_000_000_000, 50, 1);
        check(&[3], u64::MAX, 50, 2);
    }

    #[test]
    fn gaps_and_crowds_are_found_out_quickly() {
        let crowd_below_a_gap: Vec<u64> = (1..=50_000).chain([1_000_000]).collect();
        check(&crowd_below_a_gap, 1_000_001, 50, 12);
        let crowds: Vec<u64> = (0..20).flat_map(|n| n * 50_000 + 1..n * 50_000 + 3_000).collect();
        for end in [1_000_000, 950_000, 903_000, 900_002, 52_999, 2] {
            for limit in [1, 50, 600] {
                check(&crowds, end, limit, 20);
            }
        }
        let steps: Vec<u64> = (0..40).map(|n| 1 << n).collect();
        check(&steps, 1 << 40, 30, 60);
    }
}
