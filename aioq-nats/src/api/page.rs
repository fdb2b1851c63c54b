//! Pieces of what a stream holds, from either end.
//!
//! A stream can only be read upwards. So the newest are found in windows of sequences, each below the one before.
//! A short window is read sequence by sequence, many requests at a time: that costs the same however much the
//! stream holds, while the server counts what matches for each batch (8 ms where 100,000 subjects do). A long
//! window is one batch, of as many rows as are in it by count. Where a window is empty, the next row below is
//! searched for.

use std::future::ready;

use aioq::Result;
use aioq::broker::{Order, Page};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::api::batch::{self, Batch};
use crate::api::{self, StoredMessage, at, next};
use crate::connection::Session;
use crate::setup::streams::last_sequence;
use crate::wire::subject::matches;

/// Up to this many sequences are read one by one.
const SHORT: u64 = 512;

/// How many of them are asked for at a time.
const AT_ONCE: usize = 64;

/// How many rows a window is made for at most.
const ROWS: usize = 250;

/// What to list of a stream.
pub(crate) struct Listing<'a> {
    pub(crate) session: &'a Session,
    pub(crate) stream: &'a str,
    /// The subjects, with `*` for tokens.
    pub(crate) filter: &'a str,
}

impl Listing<'_> {
    /// The messages of a page; fewer than its limit only where the stream ends.
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
            let batch = self.batch(first, (limit - rows.len()).min(batch::MOST)).await?;
            rows.extend(batch.messages);
            match rows.last() {
                Some(last) if batch.more && rows.len() < limit => first = last.sequence + 1,
                _ => return Ok(rows),
            }
        }
    }

    async fn newest(&self, below: Option<u64>, limit: usize) -> Result<Vec<StoredMessage>> {
        let end = last_sequence(self.session, self.stream).await? + 1;
        let end = below.map_or(end, |below| below.min(end));
        let mut descent = Descent::new(end, limit.min(ROWS));
        let mut rows = Vec::new();
        while rows.len() < limit && descent.high > 1 {
            let wanted = (limit - rows.len()).min(ROWS);
            let Some((low, found)) = self.window(&mut descent, wanted).await? else { continue };
            match found.len() {
                0 => match self.newest_row(low).await? {
                    Some(row) => descent.jump(row + 1),
                    None => break,
                },
                count => descent.took(low, count, wanted),
            }
            rows.extend(found);
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Reads the next window: how far down, and what is in it, the newest first; `None` if it is too much.
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
        if inside > most(wanted) {
            descent.retreat(low, above, inside, wanted);
            return Ok(None);
        }
        descent.above = Some(above + inside);
        self.read(low, high, inside as usize).await.map(|rows| Some((low, rows)))
    }

    /// Goes down sequence by sequence until there are `wanted` rows; how far that was, and the rows.
    async fn walk(&self, low: u64, high: u64, wanted: usize) -> Result<(u64, Vec<StoredMessage>)> {
        let (session, stream) = (self.session, self.stream);
        let asked = (low..high)
            .rev()
            .map(|sequence| async move { at(&session.link, session.deadline(), stream, sequence).await });
        let matching = stream::iter(asked).buffered(AT_ONCE).try_filter_map(|message| {
            ready(Ok(message.filter(|message| matches(self.filter, &message.subject))))
        });
        let rows: Vec<_> = matching.take(wanted).try_collect().await?;
        Ok(match rows.last() {
            Some(last) if rows.len() == wanted => (last.sequence, rows),
            _ => (low, rows),
        })
    }

    /// All rows from `low` to `high`, the newest first: as many as `expected`, unless others write and remove
    /// meanwhile.
    async fn read(&self, mut low: u64, high: u64, expected: usize) -> Result<Vec<StoredMessage>> {
        let mut rows = Vec::new();
        loop {
            // What comes behind the window costs a search: no more of it than shows where the window ends.
            // More than none, or a window whose rows were miscounted is read one by one.
            let most = expected.saturating_sub(rows.len()).clamp(32, batch::MOST - 1) + 1;
            let batch = self.batch(low, most).await?;
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

    /// The sequence of the newest row below `high`; by halves, each asked for one row alone, which takes the
    /// server no count.
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
        let (session, deadline) = (self.session, self.session.deadline());
        let found = next(&session.link, deadline, self.stream, self.filter, low).await?;
        Ok(found.map(|found| found.sequence).filter(|sequence| *sequence < high))
    }

    /// How many rows there are from a sequence on.
    async fn count(&self, from: u64) -> Result<u64> {
        let (session, deadline) = (self.session, self.session.deadline());
        api::count(&session.link, deadline, self.stream, self.filter, from).await
    }

    async fn batch(&self, from: u64, most: usize) -> Result<Batch> {
        let (session, deadline) = (self.session, self.session.deadline());
        batch::read(&session.link, deadline, self.stream, self.filter, from, most).await
    }
}

/// How many rows a window may have that is made for so many.
fn most(wanted: usize) -> u64 {
    (4 * wanted as u64).max(32)
}

/// Where the next window lies.
#[derive(Debug)]
struct Descent {
    /// From here on, everything has been read.
    high: u64,
    /// How many rows there are from there on, if that was counted.
    above: Option<u64>,
    /// From here to `high` there are too many rows for a window; 0 if nothing is known.
    crowded: u64,
    /// How many sequences to look at next.
    span: u64,
}

impl Descent {
    fn new(high: u64, wanted: usize) -> Self {
        Self { high, above: None, crowded: 0, span: (2 * wanted as u64).max(64) }
    }

    /// Where the next window begins: at 1 or above.
    fn low(&self) -> u64 {
        let low = self.high.saturating_sub(self.span).max(1);
        if self.crowded == 0 || self.crowded >= self.high {
            return low;
        }
        // At most half of what is too much: so it becomes less each time, whatever the rows say.
        let half = (self.high - self.crowded).div_ceil(2);
        low.max(self.high - half)
    }

    /// There is nothing from `high` to where it was.
    fn jump(&mut self, high: u64) {
        self.high = high;
    }

    /// The window from `low` on was read and had `found` rows of those wanted.
    fn took(&mut self, low: u64, found: usize, wanted: usize) {
        let seen = self.high - low;
        self.high = low;
        if seen <= SHORT {
            // Read without a count.
            self.above = None;
        }
        if found < wanted {
            let most = self.span.saturating_mul(8);
            self.span = spread(seen, found as u64, wanted - found).min(most);
        }
    }

    /// The window from `low` on has `inside` rows, too many; from `high` on there are `above`.
    fn retreat(&mut self, low: u64, above: u64, inside: u64, wanted: usize) {
        self.above = Some(above);
        self.crowded = low;
        self.span = spread(self.high - low, inside, wanted);
    }
}

/// How many sequences have twice as many rows as wanted, where `seen` of them have `found`.
fn spread(seen: u64, found: u64, wanted: usize) -> u64 {
    let twice = seen.saturating_mul(2).saturating_mul(wanted as u64);
    (twice / found.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages through `rows` as [`Listing::newest`] does; tells how many windows that took.
    fn page(rows: &[u64], end: u64, limit: usize) -> (Vec<u64>, usize) {
        let mut descent = Descent::new(end, limit.min(ROWS));
        let (mut found, mut windows) = (Vec::new(), 0);
        while found.len() < limit && descent.high > 1 {
            let wanted = (limit - found.len()).min(ROWS);
            let (low, high) = (descent.low(), descent.high);
            assert!((1..high).contains(&low), "{descent:?}");
            windows += 1;
            let inside: Vec<u64> = rows.iter().copied().filter(|row| (low..high).contains(row)).collect();
            let is_short = high - low <= SHORT;
            if !is_short && inside.len() as u64 > most(wanted) {
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
                    descent.took(low, taken, wanted);
                }
            }
        }
        found.truncate(limit);
        (found, windows)
    }

    fn check(rows: &[u64], end: u64, limit: usize, most_windows: usize) {
        let (found, windows) = page(rows, end, limit);
        let expected: Vec<u64> = rows.iter().rev().copied().filter(|row| *row < end).take(limit).collect();
        assert_eq!(found, expected);
        assert!(windows <= most_windows, "{windows} windows for {limit} of {} rows", rows.len());
    }

    #[test]
    fn a_page_takes_few_windows() {
        let dense: Vec<u64> = (1..=100_000).collect();
        let sparse: Vec<u64> = (1..=100_000).filter(|row| row % 1000 == 7).collect();
        for limit in [1, 50, 250, 1000] {
            check(&dense, 100_001, limit, limit.div_ceil(ROWS));
            check(&dense, 5_000, limit, limit.div_ceil(ROWS));
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
