//! Measurements of the command `bench`, for authors of backends and of benchmarks.
//!
//! Any backend can be benched. One that gives a [`BenchSite`] from
//! [`OpenBackend::bench_site`](crate::backend::OpenBackend::bench_site) is measured in a place of its own,
//! beside a program that does the same works without aioq: the raw one. What the works are, and how
//! to read the figures, is told in the guide [`benchmarks`](crate::guide::benchmarks).

mod measure;
mod tally;
mod wire;
mod work;

use async_trait::async_trait;

pub use self::measure::{Sample, Stopwatch, at_once, median, percentile_us, spread, steadily};
pub use self::tally::Tally;
pub use self::wire::{RawMessage, RawRecord, now_us};
pub use self::work::{Plan, Work};
use crate::backend::Backend;
use crate::error::Result;

/// The queue of all jobs.
pub const QUEUE: &str = "bench";

/// The name of the task that all jobs are of.
pub const TASK: &str = "bench.noop";

/// The text that every job carries.
pub const TEXT: &str = "0123456789abcdef0123456789abcdef";

/// A place to measure in, apart from the jobs of the program; a work is done on a new one each
/// time.
#[async_trait]
pub trait BenchSite: Send + Sync + 'static {
    /// The backend of this place, opened anew: another connection to the same content.
    fn backend(&self) -> Backend;

    /// Does a work once without aioq, as well as the backend's own library allows; `None` for a
    /// work that has no such program. The bytes, the conditions and what is confirmed are aioq's:
    /// only then the two compare.
    ///
    /// Dropping the future ends all that it started.
    async fn raw(&self, work: Work, plan: Plan) -> Result<Option<Sample>>;

    /// Removes all that was made here. Called when nothing works here any more, also if nothing was
    /// made.
    async fn clean(&self) -> Result<()>;
}
