//! The condition of every write of an attempt: [`Fence`].

use super::super::suspects::SuspectTurn;
use super::Attempt;
use super::settle::Replaceable;
use crate::broker::Expect;
use crate::message::Message;
use crate::store::{History, JobRecord, Status};
use crate::time::Timestamp;
use crate::unique::HeldKey;

/// The condition of every later write of the job's record, and what earlier runs left there.
#[derive(Debug)]
pub(super) struct Fence {
    /// The record that this attempt found.
    pub(super) expect: Expect,
    /// The status in that record; pending without one.
    pub(super) last: Status,
    /// Starts of this attempt without an end, this one included.
    pub(super) starts: u32,
    /// Earlier ones of these starts that had no other suspect beside them.
    pub(super) solo: u32,
    /// True if this is the start of a suspect with no other suspect beside it.
    pub(super) alone: bool,
    /// The turn of a suspect.
    pub(super) turn: Option<Box<SuspectTurn>>,
    /// Time at which a body of this attempt began earlier, according to the record.
    pub(super) started_at: Option<Timestamp>,
    /// True if a worker has admitted the job before, according to the record. It may have given the
    /// job back before the body began.
    pub(super) was_admitted: bool,
    /// The parts of the record that earlier runs have written.
    pub(super) history: Option<Box<History>>,
    /// The unique key that the job holds.
    pub(super) key: Option<Box<HeldKey>>,
}

impl Fence {
    /// The fence of a job without a record.
    pub(super) fn fresh() -> Self {
        Self {
            expect: Expect::Absent,
            last: Status::Pending,
            starts: 1,
            solo: 0,
            alone: false,
            turn: None,
            started_at: None,
            was_admitted: false,
            history: None,
            key: None,
        }
    }

    /// The fence of a job that is refused.
    pub(super) fn unstarted(expect: Expect, last: Status) -> Self {
        Self { expect, last, starts: 0, ..Self::fresh() }
    }

    /// True if the attempt is going to replace the record that its message comes after, which an
    /// earlier run has left.
    ///
    /// A record that only says that this message waits may take the place of that record, and it
    /// may be removed at any time: see [`Attempt::replaceable`].
    pub(super) fn replaces_base_of(&self, message: &Message) -> bool {
        let base = message.supersedes.filter(|revision| *revision > 0);
        base.is_some_and(|revision| self.expect == Expect::Revision(revision))
    }

    /// Goes on from a record that was found instead of the expected one.
    pub(super) fn replace(&mut self, found: Replaceable) {
        self.expect = found.expect;
        if let Some(record) = found.record {
            self.history = History::of(*record);
        }
    }

    /// Makes the start the one of a suspect.
    pub(super) fn take_turn(&mut self, turn: SuspectTurn) {
        self.alone = turn.is_alone();
        self.turn = Some(Box::new(turn));
    }

    /// Counts this start as not alone, if the suspect has kept others waiting for too long.
    pub(super) fn end_turn(&mut self) {
        if self.turn.as_mut().is_some_and(|turn| turn.gives_way()) {
            self.alone = false;
        }
    }
}

impl Attempt<'_> {
    /// The record of this job while it runs here.
    pub(super) fn running_record(&self, started_at: Timestamp) -> JobRecord {
        let mut record = JobRecord::of(self.message(), Status::Running);
        record.started_at = Some(started_at);
        record.worker_id = Some(self.worker.scope.worker_id.clone());
        record.starts = self.fence.starts;
        record.solo = self.fence.solo + u32::from(self.fence.alone);
        if let Some(history) = &self.fence.history {
            history.fill(&mut record);
        }
        record
    }
}
