//! Recent outages of the server: [`Outages`].

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// Time of the server's last outages, as far as this process noticed them.
#[derive(Default)]
pub(crate) struct Outages(Mutex<Option<Row>>);

/// Ends of the first and the last outage of a row of outages.
#[derive(Clone, Copy)]
struct Row {
    first: Instant,
    last: Instant,
}

impl Outages {
    /// Outages that end closer to each other belong to one row.
    const APART: Duration = Duration::from_secs(10);

    /// Longest time for which a row counts. A server that comes and goes, or only seems to, must
    /// not keep jobs from their next worker for ever.
    const LONGEST: Duration = Duration::from_secs(30);

    /// Notes that an outage ends now.
    pub(crate) fn note_end(&self) {
        let (mut row, now) = (lock(&self.0), Instant::now());
        let first = row.filter(|row| now - row.last < Self::APART).map_or(now, |row| row.first);
        *row = Some(Row { first, last: now });
    }

    /// True if an outage ended within the last `span`.
    pub(crate) fn ended_within(&self, span: Duration) -> bool {
        lock(&self.0).is_some_and(|row| row.last.elapsed() < span && row.first.elapsed() < Self::LONGEST)
    }
}
