//! A process as the system sees it: signals, and what `/proc` says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::patience::PATIENCE;

/// A child that has not been waited for.
#[derive(Clone, Copy)]
pub(crate) struct Process(Pid);

impl Process {
    pub(crate) fn of(id: Option<u32>) -> Self {
        let pid = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self(pid.expect("a process that was not waited for has an id"))
    }

    pub(crate) fn id(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    pub(crate) fn signal(self, signal: Signal) {
        kill_process(self.0, signal).expect("the process runs");
    }

    /// Stops it; returns when none of its threads runs any more.
    pub(crate) fn freeze(self) {
        self.signal(Signal::STOP);
        let asked = Instant::now();
        while !self.is_frozen() {
            assert!(asked.elapsed() < PATIENCE, "process {} does not stop", self.id());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// True if all its threads are stopped.
    pub(crate) fn is_frozen(self) -> bool {
        let threads =
            fs::read_dir(format!("/proc/{}/task", self.id())).expect("the process was not waited for");
        // A thread that is gone in between does not run either.
        threads.flatten().all(|thread| stat(&thread.path()).is_none_or(|fields| fields[0] == "T"))
    }

    /// The processor time that it has used so far.
    pub(crate) fn cpu_time(self) -> Option<Duration> {
        // The 12th and 13th are user and system time.
        let fields = stat(Path::new(&format!("/proc/{}", self.id())))?;
        let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }

    /// The bytes of its memory that are resident.
    pub(crate) fn rss_bytes(self) -> Option<u64> {
        let fields = stat(Path::new(&format!("/proc/{}", self.id())))?;
        Some(fields.get(21)?.parse::<u64>().ok()? * rustix::param::page_size() as u64)
    }
}

/// The fields of a process or a thread in `/proc`, from its state on.
fn stat(folder: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name before, in parentheses, may hold spaces.
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}
