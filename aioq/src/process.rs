//! This process and its host, as the kernel reports them.

use std::{env, fs};

/// Resident memory of this process; `None` if the kernel does not report it.
pub(crate) fn rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Name of the host; `unknown` if neither the environment nor the kernel has one.
pub(crate) fn host() -> String {
    let from_kernel = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(from_kernel);
    name.map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
