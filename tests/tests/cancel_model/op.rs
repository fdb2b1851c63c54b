//! Operations of clients and workers.

use std::time::Duration;

use aioq::store::Status;
use proptest::prelude::*;

/// One step. Jobs, workers and runs are named by a number, taken modulo how many there are.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Kicks under one of the [`IDS`], or under a fresh id.
    Kick {
        id: Option<usize>,
        delay: Duration,
    },
    Cancel(usize),
    CancelAll(usize, usize),
    Abort(usize),
    Retry(usize),
    /// By two clients at once.
    RetryTwice(usize),
    Remove(usize),
    Clean {
        status: Status,
        limit: usize,
    },
    Purge,
    Pause,
    Resume,
    /// Lets the body of a job that runs come to its end.
    Finish(usize, How),
    /// Lets time pass.
    Advance(Duration),
    StartWorker,
    /// Tells a worker to stop, and waits for its end.
    StopWorker(usize),
    /// Ends a worker as a crash would.
    DropWorker(usize),
}

/// Ends of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Well,
    /// For good.
    Badly,
    /// With an error that is retried, while retries are left.
    Again,
    /// Put off, which spends no attempt.
    Later,
}

/// The ids that kicks choose from.
pub(crate) const IDS: [&str; 4] = ["a", "b", "c", "d"];

/// More than there are jobs, mostly.
const ANY: std::ops::Range<usize> = 0..8;

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Advance(Duration::from_millis(100))),
        2 => Just(Op::Advance(Duration::from_millis(700))),
        2 => Just(Op::Advance(Duration::from_secs(3))),
        1 => Just(Op::Advance(Duration::from_secs(40))),
        4 => Just(Op::StartWorker),
        2 => ANY.prop_map(Op::StopWorker),
        2 => ANY.prop_map(Op::DropWorker),
        9 => (ANY, how()).prop_map(|(run, how)| Op::Finish(run, how)),
        36 => client_op(),
    ]
}

/// Operations of a client: everything that two of them may do at once.
pub(crate) fn client_op() -> impl Strategy<Value = Op> {
    let delay = prop_oneof![
        3 => Just(Duration::ZERO),
        1 => Just(Duration::from_millis(500)),
        1 => Just(Duration::from_secs(30)),
    ];
    let id = prop_oneof![4 => (0..IDS.len()).prop_map(Some), 1 => Just(None)];
    let status = prop_oneof![
        Just(Status::Completed),
        Just(Status::Failed),
        Just(Status::Cancelled),
        Just(Status::Expired)
    ];
    prop_oneof![
        12 => (id, delay).prop_map(|(id, delay)| Op::Kick { id, delay }),
        4 => ANY.prop_map(Op::Cancel),
        2 => (ANY, ANY).prop_map(|(one, other)| Op::CancelAll(one, other)),
        4 => ANY.prop_map(Op::Abort),
        5 => ANY.prop_map(Op::Retry),
        2 => ANY.prop_map(Op::RetryTwice),
        3 => ANY.prop_map(Op::Remove),
        1 => (status, prop_oneof![Just(1), Just(100)]).prop_map(|(status, limit)| Op::Clean { status, limit }),
        1 => Just(Op::Purge),
        1 => Just(Op::Pause),
        2 => Just(Op::Resume),
    ]
}

pub(crate) fn how() -> impl Strategy<Value = How> {
    prop_oneof![Just(How::Well), Just(How::Badly), Just(How::Again), Just(How::Later)]
}
