//! Fault points: places between two steps of a worker where a test can end the process, or hold it up.
//!
//! A tool for tests. Without the feature `fault-injection` a point is an empty function. With it, the variable
//! `AIOQ_FAULT` names one point, as `POINT:PASS` or `POINT:PASS:MILLISECONDS`: at that pass of it (from 1, over
//! all jobs of the process), the process aborts, which leaves as little behind as SIGKILL; or the thread sleeps so
//! long, for a test that freezes the process just there.

/// A place between two steps of a delivery, in the order in which they are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A delivery has come; nothing is known of it yet.
    Fetched,
    /// A redelivery is claimed: the record says that the job runs here.
    Claimed,
    /// The body comes next.
    Started,
    /// The body has ended; nothing is written of it yet.
    Ran,
    /// The last record is written, the message not acked.
    Saved,
    /// The record tells of the next attempt, whose message is not there yet.
    Announced,
    /// The message of the next attempt is there, the one before it not acked.
    Replaced,
    /// The message is acked.
    Acked,
}

/// A place that `AIOQ_FAULT` may name.
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

    use super::Fault;

    const ALL: [Fault; 8] = [
        Fault::Fetched,
        Fault::Claimed,
        Fault::Started,
        Fault::Ran,
        Fault::Saved,
        Fault::Announced,
        Fault::Replaced,
        Fault::Acked,
    ];

    /// What `AIOQ_FAULT` asks for.
    #[derive(Debug, PartialEq)]
    struct Plan {
        fault: Fault,
        pass: u64,
        pause: Option<Duration>,
    }

    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("AIOQ_FAULT").ok()?;
        // A test that does not test what it means to must not pass.
        Some(
            Plan::parse(&text)
                .unwrap_or_else(|| panic!("AIOQ_FAULT is `{text}`: not POINT:PASS[:MILLISECONDS]")),
        )
    });

    /// A place that `AIOQ_FAULT` may name.
    pub fn point(fault: Fault) {
        static PASSES: AtomicU64 = AtomicU64::new(0);
        let Some(plan) = PLAN.as_ref().filter(|plan| plan.fault == fault) else { return };
        if PASSES.fetch_add(1, Ordering::Relaxed) + 1 != plan.pass {
            return;
        }
        tracing::warn!("fault point {fault:?}");
        match plan.pause {
            Some(pause) => std::thread::sleep(pause),
            None => std::process::abort(),
        }
    }

    impl Plan {
        fn parse(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let name = parts.next()?;
            let fault = ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))?;
            let pass = parts.next()?.parse().ok().filter(|pass| *pass > 0)?;
            let pause = parts.next().map(str::parse).transpose().ok()?.map(Duration::from_millis);
            parts.next().is_none().then_some(Self { fault, pass, pause })
        }
    }

    #[test]
    fn a_plan_names_a_point_a_pass_and_maybe_a_pause() {
        let plan =
            |fault, pass, pause: Option<u64>| Plan { fault, pass, pause: pause.map(Duration::from_millis) };
        assert_eq!(Plan::parse("saved:3"), Some(plan(Fault::Saved, 3, None)));
        assert_eq!(Plan::parse("ran:1:500"), Some(plan(Fault::Ran, 1, Some(500))));
        for wrong in ["", "saved", "saved:0", "saved:x", "slept:1", "saved:1:x", "saved:1:2:3"] {
            assert_eq!(Plan::parse(wrong), None, "{wrong}");
        }
    }
}
