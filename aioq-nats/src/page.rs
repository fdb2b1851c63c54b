//! Pieces of what a stream holds, from either end.
//!
//! A stream can only be read upwards. So the newest are found in windows of sequences, each below the one before:
//! a short window is read sequence by sequence, many requests at a time, which costs the same however much the
//! stream holds; a long one as a batch of what matches in it.

use std::future::ready;

use aioq::Result;
use aioq::broker::{Order, Page};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::api::{StoredMessage, at};
use crate::batch::{self, Batch};
use crate::connection::Session;
use crate::streams::last_sequence;
use crate::subject::matches;

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
            let low = descent.low();
            let read = match descent.high - low <= SHORT {
                true => self.walk(low, descent.high, wanted).await?,
                false => self.window(low, descent.high, wanted).await?,
            };
            match read {
                Read::All { low, rows: found } => {
                    descent.took(low, found.len(), wanted - found.len().min(wanted));
                    rows.extend(found);
                }
                Read::TooMany { count, last } => descent.retreat(low, last, count, wanted),
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Goes down sequence by sequence until there are `wanted` rows.
    async fn walk(&self, low: u64, high: u64, wanted: usize) -> Result<Read> {
        let (session, stream) = (self.session, self.stream);
        let asked = (low..high)
            .rev()
            .map(|sequence| async move { at(&session.link, session.deadline(), stream, sequence).await });
        let matching = stream::iter(asked).buffered(AT_ONCE).try_filter_map(|message| {
            ready(Ok(message.filter(|message| matches(self.filter, &message.subject))))
        });
        let rows: Vec<_> = matching.take(wanted).try_collect().await?;
        let low = match rows.last() {
            Some(last) if rows.len() == wanted => last.sequence,
            _ => low,
        };
        Ok(Read::All { low, rows })
    }

    /// Reads a window as a batch, unless there is far more in it than wanted.
    async fn window(&self, low: u64, high: u64, wanted: usize) -> Result<Read> {
        let Batch { mut messages, more } = self.batch(low, (4 * wanted).clamp(32, batch::MOST)).await?;
        let last = messages.last().map_or(high, |last| last.sequence);
        let is_whole = !more || last + 1 >= high;
        messages.retain(|message| message.sequence < high);
        if !is_whole {
            return Ok(Read::TooMany { count: messages.len(), last });
        }
        messages.reverse();
        Ok(Read::All { low, rows: messages })
    }

    async fn batch(&self, from: u64, most: usize) -> Result<Batch> {
        let (session, deadline) = (self.session, self.session.deadline());
        batch::read(&session.link, deadline, self.stream, self.filter, from, most).await
    }
}

/// What came of a window.
enum Read {
    /// All from `low` on, the newest first.
    All { low: u64, rows: Vec<StoredMessage> },
    /// The first `count` rows, up to sequence `last`, and there are more.
    TooMany { count: usize, last: u64 },
}

/// Where the next window lies.
#[derive(Debug)]
struct Descent {
    /// From here on, everything has been read.
    high: u64,
    /// From here to `high` there is more than one batch can hold; 0 if nothing is known.
    crowded: u64,
    /// How many sequences to look at next.
    span: u64,
}

impl Descent {
    fn new(high: u64, wanted: usize) -> Self {
        Self { high, crowded: 0, span: (2 * wanted as u64).max(64) }
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

    /// The window from `low` on was read and had `found` rows; `left` are still wanted.
    fn took(&mut self, low: u64, found: usize, left: usize) {
        let (seen, most) = (self.high - low, self.span.saturating_mul(8));
        self.high = low;
        if left > 0 {
            self.span = spread(seen, found, left).unwrap_or(most).min(most);
        }
    }

    /// The window from `low` on has `count` rows up to `last`, and more behind.
    fn retreat(&mut self, low: u64, last: u64, count: usize, wanted: usize) {
        self.crowded = low;
        self.span = spread(last + 1 - low, count, wanted).unwrap_or(1);
    }
}

/// How many sequences have twice as many rows as wanted, where `seen` of them have `found`.
fn spread(seen: u64, found: usize, wanted: usize) -> Option<u64> {
    let twice = seen.saturating_mul(2).saturating_mul(wanted as u64);
    twice.checked_div(found as u64).map(|span| span.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages through `rows` as [`Listing::newest`] does, and counts the windows and the rows read for it.
    fn page(rows: &[u64], end: u64, limit: usize) -> (Vec<u64>, usize, usize) {
        let mut descent = Descent::new(end, limit.min(ROWS));
        let (mut found, mut windows, mut read) = (Vec::new(), 0, 0);
        while found.len() < limit && descent.high > 1 {
            let wanted = (limit - found.len()).min(ROWS);
            let (low, high) = (descent.low(), descent.high);
            assert!((1..high).contains(&low), "{descent:?}");
            windows += 1;
            let inside: Vec<u64> = rows.iter().copied().filter(|row| (low..high).contains(row)).collect();
            let most = (4 * wanted).clamp(32, batch::MOST);
            if inside.len() > most && high - low > SHORT {
                read += most;
                descent.retreat(low, inside[most - 1], most, wanted);
            } else {
                read += inside.len();
                descent.took(low, inside.len(), wanted - inside.len().min(wanted));
                found.extend(inside.iter().rev());
            }
        }
        found.truncate(limit);
        (found, windows, read)
    }

    fn check(rows: &[u64], end: u64, limit: usize, most_windows: usize) {
        let (found, windows, read) = page(rows, end, limit);
        let expected: Vec<u64> = rows.iter().rev().copied().filter(|row| *row < end).take(limit).collect();
        assert_eq!(found, expected);
        assert!(windows <= most_windows, "{windows} windows for {limit} of {} rows", rows.len());
        assert!(read <= 40 * limit.max(32), "{read} rows read for {limit} of {}", rows.len());
    }

    #[test]
    fn a_page_reads_little_more_than_it_shows() {
        let dense: Vec<u64> = (1..=100_000).collect();
        let sparse: Vec<u64> = (1..=100_000).filter(|row| row % 1000 == 7).collect();
        for limit in [1, 50, 250, 1000] {
            check(&dense, 100_001, limit, limit.div_ceil(ROWS) + 1);
            check(&dense, 5_000, limit, limit.div_ceil(ROWS) + 1);
            check(&sparse, 100_001, limit.min(50), 8);
        }
        check(&[], 1_000_000_000, 50, 12);
        check(&[3], u64::MAX, 50, 30);
    }

    #[test]
    fn gaps_and_crowds_are_found_out_quickly() {
        let crowd_below_a_gap: Vec<u64> = (1..=50_000).chain([1_000_000]).collect();
        check(&crowd_below_a_gap, 1_000_001, 50, 30);
        let crowds: Vec<u64> = (0..20).flat_map(|n| n * 50_000 + 1..n * 50_000 + 3_000).collect();
        for end in [1_000_000, 950_000, 903_000, 900_002, 52_999, 2] {
            for limit in [1, 50, 600] {
                check(&crowds, end, limit, 40);
            }
        }
    }
}
