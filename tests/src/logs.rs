//! The log lines of a test program, kept so that a test can look at them.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

/// All log lines of this process, as JSON.
static LOGS: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Logs;

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGS.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the log lines of this process from now on.
pub fn capture_logs() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        tracing_subscriber::fmt().json().with_current_span(false).with_writer(|| Logs).init();
    });
}

/// The kept log lines that contain a text.
#[must_use]
pub fn logged(text: &str) -> Vec<String> {
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8_lossy(&logs).lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}
