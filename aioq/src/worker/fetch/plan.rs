//! The amounts to fetch, as a pure function of the worker's load: [`plan`].

use crate::broker::Demand;

/// The most deliveries of one fetch.
pub(super) const BATCH: usize = 256;

/// The kinds of queues. Each kind has a source of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum QueueKind {
    /// Queues of async tasks, and mixed queues.
    Async,
    /// Mixed queues whose blocking jobs have once been too many. Nothing is fetched while they are.
    Overflowed,
    /// Queues of blocking tasks only. As many jobs are fetched as there are free threads.
    Blocking,
}

/// The load of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Deliveries in the buffer.
    pub(super) buffered: usize,
    /// True if the buffer is low.
    pub(super) is_low: bool,
    /// True while jobs cannot be saved because the storage is full.
    pub(super) is_full: bool,
    pub(super) free_slots: usize,
    /// Threads that are neither taken nor reserved, less the jobs that wait for one.
    pub(super) free_threads: isize,
    /// Async jobs to hold ready at the current rate.
    pub(super) prefetch: usize,
    /// Blocking jobs to hold ready at the current rate.
    pub(super) blocking_prefetch: usize,
    /// True if more blocking jobs of mixed queues may wait for a thread.
    pub(super) accepts_overflow: bool,
    /// True if the async source has overflowed queues only.
    pub(super) only_overflowed: bool,
}

/// The amounts to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    asynchronous: Option<Demand>,
    overflowed: Option<Demand>,
    blocking: Option<Demand>,
    /// Number of buffered deliveries at which to fetch more.
    pub(super) low_water: usize,
}

impl Plan {
    /// The demand for a kind of queues; `None` if nothing is fetched from them.
    pub(super) fn demand(&self, kind: QueueKind) -> Option<Demand> {
        match kind {
            QueueKind::Async => self.asynchronous,
            QueueKind::Overflowed => self.overflowed,
            QueueKind::Blocking => self.blocking,
        }
    }
}

/// Decides how much to fetch.
///
/// Half of the jobs to hold ready goes into the worker's buffer. The listener fetches the other
/// half while the first is run.
pub(super) fn plan(load: Load) -> Plan {
    let ahead = (load.prefetch / 2).min(BATCH);
    let low_water = ahead / 2;
    let now = (load.free_slots.min(BATCH) + ahead).saturating_sub(load.buffered);
    if load.is_full || load.free_slots == 0 || now == 0 || !load.is_low {
        return Plan { asynchronous: None, overflowed: None, blocking: None, low_water };
    }
    let demand = Some(Demand { now, prefetch: load.prefetch - ahead });
    let overflowed = demand.filter(|_| load.accepts_overflow);
    let asynchronous = if load.only_overflowed { overflowed } else { demand };
    Plan { asynchronous, overflowed, blocking: blocking_demand(load), low_water }
}

/// The demand for blocking jobs; `None` while no thread is free.
fn blocking_demand(load: Load) -> Option<Demand> {
    let ahead = (load.blocking_prefetch / 2).min(BATCH);
    let now = load.free_threads.saturating_add_unsigned(ahead);
    let now = usize::try_from(now).ok().filter(|now| *now > 0)?;
    Some(Demand { now: now.min(BATCH), prefetch: load.blocking_prefetch - ahead })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load {
        buffered: 0,
        is_low: true,
        is_full: false,
        free_slots: 10,
        free_threads: 4,
        prefetch: 0,
        blocking_prefetch: 0,
        accepts_overflow: true,
        only_overflowed: false,
    };

    const fn demand(now: usize, prefetch: usize) -> Option<Demand> {
        Some(Demand { now, prefetch })
    }

    /// The demands for async, overflowed and blocking queues.
    fn demands(load: Load) -> [Option<Demand>; 3] {
        [QueueKind::Async, QueueKind::Overflowed, QueueKind::Blocking].map(|kind| plan(load).demand(kind))
    }

    #[test]
    fn an_idle_worker_fetches_as_much_as_it_can_start() {
        assert_eq!(demands(IDLE), [demand(10, 0), demand(10, 0), demand(4, 0)]);
        assert_eq!(plan(IDLE).low_water, 0);
        let many = Load { free_slots: 10_000, free_threads: 10_000, ..IDLE };
        assert_eq!(demands(many), [demand(BATCH, 0), demand(BATCH, 0), demand(BATCH, 0)]);
    }

    #[test]
    fn half_of_what_is_held_ready_is_buffered_and_the_rest_prefetched() {
        let fast = Load { prefetch: 100, blocking_prefetch: 6, buffered: 5, ..IDLE };
        assert_eq!(demands(fast), [demand(55, 50), demand(55, 50), demand(7, 3)]);
        assert_eq!(plan(fast).low_water, 25);
    }

    #[test]
    fn nothing_is_fetched_without_a_free_slot_or_room_in_the_buffer_or_the_storage() {
        for busy in [
            Load { free_slots: 0, ..IDLE },
            Load { is_low: false, ..IDLE },
            Load { is_full: true, ..IDLE },
            Load { buffered: 10, ..IDLE },
        ] {
            assert_eq!(demands(busy), [None; 3], "{busy:?}");
        }
    }

    #[test]
    fn too_many_waiting_blocking_jobs_stop_their_mixed_queues_alone() {
        let crowded = Load { accepts_overflow: false, ..IDLE };
        assert_eq!(demands(crowded), [demand(10, 0), None, demand(4, 0)]);
        let only = Load { only_overflowed: true, ..crowded };
        assert_eq!(demands(only), [None, None, demand(4, 0)]);
    }

    #[test]
    fn jobs_that_wait_for_threads_use_up_the_demand_for_blocking_ones() {
        let waiting = Load { free_threads: -2, blocking_prefetch: 4, ..IDLE };
        assert_eq!(plan(waiting).demand(QueueKind::Blocking), None);
    }
}
