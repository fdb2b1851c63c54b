//! Tasks that several modules run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aioq::prelude::*;
use aioq_tests::Probe;
use tokio::sync::Notify;

#[task]
pub(crate) async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub(crate) async fn doomed(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[task(retry(max = 3, backoff = "1h"))]
pub(crate) async fn patient(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

#[task(retry(max = 1, backoff = "1ms"))]
pub(crate) async fn reports_and_fails(#[inject] ctx: &Context) -> Result<(), String> {
    ctx.progress(1, 3, None);
    ctx.log("a line");
    Err("no".to_owned())
}

struct TellDrop(Arc<Notify>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Runs until the gate opens, or until it is dropped.
#[task]
pub(crate) async fn gated(#[inject] probe: &Probe) {
    let _tell = TellDrop(Arc::clone(&probe.dropped));
    probe.run(1);
    probe.gate.acquire().await.unwrap().forget();
}

#[task(retry(max = 1000, backoff = "1ms"))]
pub(crate) async fn hasty(#[inject] probe: &Probe) -> Result<(), String> {
    probe.run(1);
    Err("again".to_owned())
}

#[task(ack = "on_receive")]
pub(crate) async fn at_most_once(#[inject] probe: &Probe) {
    probe.started.notify_one();
    std::future::pending::<()>().await;
}

/// Blocks its thread until it is told to stop.
#[task]
pub(crate) fn obedient(#[inject] ctx: &Context, #[inject] probe: &Probe) -> Result<(), String> {
    probe.started.notify_one();
    while !ctx.is_cancelled() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Err("told to stop".to_owned())
}

/// Blocks its thread, whatever it is told, until the flag is set.
#[task]
pub(crate) fn stubborn(#[inject] flag: &Arc<AtomicBool>, #[inject] probe: &Probe) {
    probe.started.notify_one();
    while !flag.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[task]
pub(crate) async fn talkative(#[inject] ctx: &Context, #[inject] probe: &Probe) {
    ctx.progress(1, 3, "one".to_owned());
    ctx.log("line one");
    probe.gate.acquire().await.unwrap().forget();
    ctx.progress(3, 3, None);
}
