//! Every option that is supported.
#![deny(warnings)]

use std::time::Duration;

use aioq::{TaskError, TaskResult, task};

#[derive(Debug)]
pub struct SendError;

impl SendError {
    fn is_transient(&self) -> bool {
        true
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("not sent")
    }
}

impl std::error::Error for SendError {}

#[task(
    name = "email.send",
    queue = "email",
    priority = 3,
    timeout = "30s",
    retry(max = 5, backoff = "1s..5m", jitter, when = SendError::is_transient, retry_for = "48h"),
    ttl = "1h",
    ack = "after_run",
    labels(team = "growth", tier = -2, share = 0.5, beta = true),
    alias("send_mail", "mail"),
)]
pub async fn send_email(to: &str) -> Result<u8, SendError> {
    let _ = to;
    Err(SendError)
}

#[task(unique)]
pub async fn unique_by_all(to: &str, days: u8) -> u8 {
    let _ = to;
    days
}

#[task(unique(by = [to, days], within = "10m"))]
pub async fn unique_for_a_while(to: &str, days: u8, note: &str) -> u8 {
    let _ = (to, note);
    days
}

#[task(unique(by = to, until = "start"), ack = "on_receive")]
pub async fn unique_until_the_start(to: &str) {
    let _ = to;
}

#[task(unique(by = to, debounce = "5s", max = "1m"))]
pub async fn debounced(to: &str) {
    let _ = to;
}

fn later(attempt: u32, _: &TaskError) -> Option<Duration> {
    Some(Duration::from_secs(attempt.into()))
}

#[task(retry(policy = later), ack = "on_receive")]
pub fn with_policy() -> Result<(), String> {
    Ok(())
}

#[task(retry(max = 1, backoff = "linear 1s..5m"), ack = "on_save")]
pub async fn linear() -> TaskResult<u8> {
    Ok(1)
}

#[task(retry(retry_for = "1h", backoff = "10s"))]
pub async fn plain_value() -> u8 {
    1
}

type Hidden = std::result::Result<u8, String>;

#[task(fallible)]
pub async fn hidden() -> Hidden {
    Ok(1)
}

#[task(cron = "0 3 * * *", tz = "Europe/Berlin", missed = "once", overlap = "skip")]
async fn nightly(#[default] days: u8, #[inject] state: &u8) {
    let _ = (days, state);
}

#[task(every = "10m")]
async fn often() {}

fn main() {
    let _ = (send_email("ada"), with_policy(), linear(), plain_value(), hidden());
    assert_eq!(send_email::NAME, "email.send");
}
