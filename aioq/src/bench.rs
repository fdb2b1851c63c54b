//! Measurements of the command `bench`, for authors of backends and of benchmarks.
//!
//! Any backend can be measured. A backend that returns a [`BenchSite`] from
//! [`OpenBackend::bench_site`](crate::backend::OpenBackend::bench_site) is measured apart from the
//! jobs of the program, beside a raw program that does the same works without aioq. The guide
//! [`benchmarks`](crate::guide::benchmarks) describes the works and the figures.

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

/// Queue of all jobs.
pub const QUEUE: &str = "bench";

/// Name of the task of all jobs.
pub const TASK: &str = "bench.noop";

/// Text argument of every job.
pub const TEXT: &str = "0123456789abcdef0123456789abcdef";

/// A site to measure in, apart from the jobs of the program. Each run of a work gets a new one.
#[async_trait]
pub trait BenchSite: Send + Sync + 'static {
    /// The backend of this site, opened anew: another connection to the same content.
    fn backend(&self) -> Backend;

    /// Runs a work once without aioq, as well as the library of the backend allows; `None` for a
    /// work without a raw program. To be comparable, the raw program must write the same bytes as
    /// aioq, on the same conditions, and wait for the same confirmations.
    ///
    /// Dropping the future must end everything that it started.
    async fn raw(&self, work: Work, plan: Plan) -> Result<Option<Sample>>;

    /// Removes everything that was made in this site. Called after the last use of the site, also
    /// if nothing was made.
    async fn clean(&self) -> Result<()>;
}
