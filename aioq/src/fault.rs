//! Fault points: steps of a producer or a worker at which a test can end the process or hold it up.
//!
//! Without the feature `fault-injection` a point is an empty function. With it, the variable
//! `AIOQ_FAULT` names a point, the pass that triggers it (from 1, over all jobs of the process),
//! and an action:
//!
//! | value | action |
//! |---|---|
//! | `POINT:PASS` | the process aborts, which leaves as little behind as SIGKILL |
//! | `POINT:PASS:500` | the thread sleeps for 500 milliseconds; the rest of the process goes on |
//! | `POINT:PASS:kill` | the process kills itself: SIGKILL |
//! | `POINT:PASS:term` | the process asks itself to end, SIGTERM, and goes on |
//! | `POINT:PASS:stop` | the process stops itself, SIGSTOP, until it gets SIGCONT |
//!
//! The signals are for Unix.

/// A step of a kick or of a delivery, in the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A message is sealed, and not sent yet.
    Kicking,
    /// A kick has taken its unique key, and its message is not sent yet.
    Locked,
    /// A kick has marked the entry of a unique key whose job it doubts.
    Contested,
    /// A kick has recorded its job as blocked, and has not tied it to its parents.
    Tied,
    /// The edges to all parents of a job are written, and no parent has been met.
    Edged,
    /// A parent is known to be awaited, or to have ended.
    Marked,
    /// The broker has confirmed a kick, and the caller has not been told.
    Kicked,
    /// A delivery has arrived and has not been read.
    Fetched,
    /// The burst of a debounced job is closed, and what it shall run is not decided yet.
    Closed,
    /// A redelivery is claimed: its record says that it runs here.
    Claimed,
    /// The body is about to start.
    Started,
    /// The body has ended, and no result is written yet.
    Ran,
    /// The last record is written, and the message is not acked yet.
    Saved,
    /// An edge of a parent that has ended is settled.
    Settled,
    /// The baton of a job's parents is handed to one that has not ended.
    Handed,
    /// The record of a job says that its parents are done, and its message is not kicked yet.
    Released,
    /// The message of a job whose parents are done is kicked, and its edges are not removed.
    Sent,
    /// A job has failed for its parent, and the jobs that wait for it have not.
    Failed,
    /// The job of a tick is kicked, and its schedule does not say so yet.
    Ticked,
    /// The record announces the next attempt, and its message is not in the broker yet.
    Announced,
    /// The message of the next attempt is in the broker, and the one before is not acked yet.
    Replaced,
    /// The message is acked, before the body or the record if its task asks for that.
    Acked,
}

/// Passes a fault point.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn point(_: Fault) {}

#[cfg(feature = "fault-injection")]
pub use self::injection::point;

#[cfg(feature = "fault-injection")]
mod injection {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[cfg(unix)]
    use rustix::process::{Signal, getpid, kill_process};

    use super::Fault;

    /// Time for a signal to take effect on all threads of the process.
    #[cfg(unix)]
    const TAKEN: Duration = Duration::from_millis(100);

    const ALL: [Fault; 22] = [
        Fault::Kicking,
        Fault::Locked,
        Fault::Contested,
        Fault::Tied,
        Fault::Edged,
        Fault::Marked,
        Fault::Kicked,
        Fault::Fetched,
        Fault::Closed,
        Fault::Claimed,
        Fault::Started,
        Fault::Ran,
        Fault::Saved,
        Fault::Settled,
        Fault::Handed,
        Fault::Released,
        Fault::Sent,
        Fault::Failed,
        Fault::Ticked,
        Fault::Announced,
        Fault::Replaced,
        Fault::Acked,
    ];

    /// The plan in `AIOQ_FAULT`.
    #[derive(Debug, PartialEq)]
    struct Plan {
        fault: Fault,
        pass: u64,
        action: Action,
    }

    /// The action at the point.
    #[derive(Debug, PartialEq)]
    enum Action {
        Abort,
        Sleep(Duration),
        #[cfg(unix)]
        Signal(Signal),
    }

    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("AIOQ_FAULT").ok().filter(|text| !text.is_empty())?;
        // A misspelt plan must not let its test pass.
        Some(Plan::parse(&text).unwrap_or_else(|| {
            panic!("AIOQ_FAULT is `{text}`: not POINT:PASS[:MILLISECONDS|:kill|:term|:stop]")
        }))
    });

    /// Passes a fault point.
    pub fn point(fault: Fault) {
        static PASSES: AtomicU64 = AtomicU64::new(0);
        let Some(plan) = PLAN.as_ref().filter(|plan| plan.fault == fault) else { return };
        if PASSES.fetch_add(1, Ordering::Relaxed) + 1 != plan.pass {
            return;
        }
        tracing::warn!("fault point {fault:?}");
        plan.action.take();
    }

    impl Plan {
        fn parse(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let name = parts.next()?;
            let fault = ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))?;
            let pass = parts.next()?.parse().ok().filter(|pass| *pass > 0)?;
            let action = parts.next().map_or(Some(Action::Abort), Action::parse)?;
            parts.next().is_none().then_some(Self { fault, pass, action })
        }
    }

    impl Action {
        fn parse(text: &str) -> Option<Self> {
            match text {
                #[cfg(unix)]
                "kill" => Some(Self::Signal(Signal::KILL)),
                #[cfg(unix)]
                "term" => Some(Self::Signal(Signal::TERM)),
                #[cfg(unix)]
                "stop" => Some(Self::Signal(Signal::STOP)),
                pause => pause.parse().ok().map(|pause| Self::Sleep(Duration::from_millis(pause))),
            }
        }

        fn take(&self) {
            match self {
                Self::Abort => std::process::abort(),
                Self::Sleep(pause) => std::thread::sleep(*pause),
                #[cfg(unix)]
                Self::Signal(signal) => {
                    kill_process(getpid(), *signal).expect("a process may send itself a signal");
                    // Another thread may receive it, so this one waits until it has taken effect.
                    std::thread::sleep(TAKEN);
                }
            }
        }
    }

    #[test]
    fn a_plan_names_a_point_a_pass_and_maybe_what_happens() {
        let plan = |fault, pass, action| Plan { fault, pass, action };
        assert_eq!(Plan::parse("saved:3"), Some(plan(Fault::Saved, 3, Action::Abort)));
        let sleep = Action::Sleep(Duration::from_millis(500));
        assert_eq!(Plan::parse("ran:1:500"), Some(plan(Fault::Ran, 1, sleep)));
        #[cfg(unix)]
        for (name, signal) in [("kill", Signal::KILL), ("term", Signal::TERM), ("stop", Signal::STOP)] {
            let plan = plan(Fault::Kicked, 2, Action::Signal(signal));
            assert_eq!(Plan::parse(&format!("kicked:2:{name}")), Some(plan));
        }
        for wrong in
            ["", "saved", "saved:0", "saved:x", "slept:1", "saved:1:x", "saved:1:2:3", "ran:1:kill:1"]
        {
            assert_eq!(Plan::parse(wrong), None, "{wrong}");
        }
    }
}
