//! The protocol by which a client cancels jobs that workers may hold.
//!
//! A worker may hold a job that has not started, and only that worker knows. A client cannot take
//! the message back. Removing it first and asking afterwards would lose a job: if a worker turns
//! out to have started it, its message is gone, and with it the retry and the redelivery. So the
//! client asks first.
//!
//! ```text
//! client                      shared state (KvStore)                 worker
//!   |                                  |  <------- watch cancel.* ------  |  1 before it registers
//!   |                                  |  <-- register, scan cancel.* --  |  2 before it fetches
//!   |  -- watch answer.N.* --------->  |                                  |
//!   |  -- put cancel.N --------------> |                                  |
//!   |     {queues, jobs, abort}        |  ----- changed: cancel.N ----->  |
//!   |                                  |  <------- get cancel.N --------  |
//!   |                                  |                                  |  3 notes the targets
//!   |                                  |                                  |  4 searches held jobs
//!   |                                  |  <---- put answer.N.WORKER ----  |
//!   |  <-- changed: answer.N.WORKER -  |           {started}              |
//!   |  -- get answer.N.WORKER ------>  |                                  |
//!   |                                  |                                  |
//!   |  every live worker of these queues has answered:                    |
//!   |  -- put cancel.N without the started jobs (narrow), or delete it (withdraw)
//!   |  -- write the record of each other job: cancelled (JobStore, conditional)
//!   |  -- remove its message (Broker)
//! ```
//!
//! From its answer on, a worker starts none of the targets that it has not reported as started:
//! neither those that it holds nor those that it receives later. Once all have answered, nothing
//! starts a job that no worker has started. A crash between the last steps leaves a job that runs,
//! or a record that says why it does not.
//!
//! - **A worker that is not asked must not start a job.** Hence the order of steps 1 and 2. A
//!   worker whose last heartbeat is older than 20 s starts nothing until it has sent another and
//!   scanned the requests again. Clients ask every worker whose heartbeat is younger than 30 s.
//! - **No two clocks are compared.** A heartbeat is a key that the store itself removes after 30 s;
//!   the client sees only that it is there. The worker counts its 20 s by a monotonic clock.
//! - **A target names a run, not only an id**: the time of the kick and the record that the message
//!   comes after. A job that is rerun, or kicked anew under the same id, is not meant.
//! - **Note, then search; hold, then look.** The worker notes the targets (3) before it searches
//!   the held jobs (4). A delivery is among the held jobs before it looks at the notes. So one of
//!   the two sees the other.
//! - **A change is only a hint.** Any user who may publish there can forge it, so both sides read
//!   the stored key.
//! - **Requests expire.** A client that crashes leaves one behind; workers forget it after five
//!   minutes.
//!
//! A delivery pays one atomic load for this while nothing is being cancelled.

mod protocol;
mod requester;

pub(crate) use self::protocol::{
    CancelRequest, REQUEST_TTL, REQUESTS, RunId, Target, aborted, answer, cancelled_before_start,
};
pub(crate) use self::requester::Requester;
