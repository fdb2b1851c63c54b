//! Jobs that run again and again: [`Schedules`].
//!
//! A schedule is one entry in the shared state (`entry`): what to run, when, and the newest tick
//! that is settled. Each worker has a scheduler (`scheduler`), and any of them may fire a tick
//! (`fire`): there is no leader. The id of a tick's job makes sure that it is kicked once, and
//! the worker that starts the job asks the entry whether it stands for the tick (`admission`).
//!
//! Which ticks there are is a pure function of the entry and the time: `cron`, `trigger`,
//! `plan`.
//!
//! `tests/tests/search_model` searches the orders of the requests of schedulers and workers.

mod admission;
mod backfill;
mod change;
mod cron;
mod entry;
#[cfg(feature = "cli")]
pub(crate) mod explain;
mod fire;
mod plan;
mod reconcile;
mod scheduler;
mod spec;
mod trigger;
mod view;
mod zone;

pub(crate) use self::admission::Admission;
pub use self::change::Put;
pub use self::entry::{Source, TickCounts};
pub(crate) use self::reconcile::code_ids;
pub(crate) use self::scheduler::Scheduler;
pub use self::spec::Schedule;
pub use self::view::{ScheduleFilter, ScheduleState, ScheduleView, TickJob, When};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
pub use crate::task::{Missed, Overlap};

/// Makes, lists, pauses and removes schedules.
///
/// A request that the state of the schedule does not allow returns `Ok(false)` and changes nothing.
///
/// ```
/// use aioq::prelude::*;
/// use aioq::schedules::{Put, Schedule};
///
/// #[task]
/// async fn invoice(customer: u64) -> u64 {
///     customer
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = Client::connect(Memory::new()).await?;
/// let schedules = client.schedules();
/// let monthly = || Schedule::cron("0 6 1 * *").tz("Europe/Paris");
/// assert_eq!(schedules.put("invoices-42", monthly(), invoice(42)).await?, Put::Created);
/// assert_eq!(schedules.put("invoices-42", monthly(), invoice(42)).await?, Put::Same);
///
/// let next = schedules.get("invoices-42").await?.next(3);
/// assert!(next[0] < next[1] && next[1] < next[2]);
/// assert!(schedules.pause("invoices-42").await?);
/// # Ok::<(), aioq::Error>(()) }).unwrap();
/// ```
///
/// # Errors
/// Each method returns the errors of the backend, and [`NotFound`](ErrorKind::NotFound) for an
/// unknown id.
///
/// # Cancel safety
/// A call whose future is dropped has changed the schedule, or not; never half of it.
#[derive(Clone, Debug)]
pub struct Schedules {
    client: Client,
}

impl Client {
    /// Makes, lists, pauses and removes schedules.
    #[must_use]
    pub fn schedules(&self) -> Schedules {
        Schedules { client: self.clone() }
    }
}

fn unknown(id: &str) -> Error {
    let why = format!("no schedule `{}`", crate::error::excerpt(id));
    Error::new(ErrorKind::NotFound, why)
}

impl Schedules {
    async fn stored(&self, id: &str) -> Result<entry::StoredSchedule> {
        entry::get(&**self.client.backend().kv(), id).await?.ok_or_else(|| unknown(id))
    }
}
