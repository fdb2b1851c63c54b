//! Tasks that several modules run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aioq::Result;
use aioq::prelude::*;
use aioq_tests::Probe;
use tokio::sync::Semaphore;

#[task]
pub(crate) async fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[task]
pub(crate) async fn parse(text: &str) -> Result<i64, std::num::ParseIntError> {
    text.parse()
}

#[task(retry(max = 3, backoff = "20ms"))]
pub(crate) async fn flaky(
    failures: u32,
    #[inject] ctx: &Context,
    #[inject] probe: &Probe,
) -> Result<u32, String> {
    probe.run(ctx.attempt());
    if ctx.attempt() <= failures { Err(format!("failure {}", ctx.attempt())) } else { Ok(ctx.attempt()) }
}

#[task(retry(max = 2, backoff = "1h"))]
pub(crate) async fn steered(how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<u32> {
    probe.run(ctx.attempt());
    match (how, probe.runs()) {
        ("retry_in", 1) => Err(TaskError::retry_in("20ms", "soon")),
        ("snooze", 1) => Err(TaskError::snooze("20ms")),
        ("fatal", _) => Err(TaskError::fatal("never again")),
        ("cancel", _) => Err(TaskError::cancel("not wanted any more")),
        _ => Ok(ctx.attempt()),
    }
}

#[task]
pub(crate) async fn hold(#[inject] ctx: &Context, #[inject] probe: &Probe) -> u32 {
    probe.run(ctx.attempt());
    probe.gate.acquire().await.unwrap().forget();
    ctx.attempt()
}

/// Measures how many bodies are inside at once.
#[derive(Clone)]
pub(crate) struct Gauge {
    pub(crate) inside: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
    pub(crate) inside_blocking: Arc<AtomicUsize>,
    pub(crate) most_blocking: Arc<AtomicUsize>,
    pub(crate) full: Arc<Semaphore>,
    pub(crate) blocking_full: Arc<Semaphore>,
    pub(crate) open: Arc<Semaphore>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            inside: Arc::default(),
            most: Arc::default(),
            inside_blocking: Arc::default(),
            most_blocking: Arc::default(),
            full: Arc::new(Semaphore::new(0)),
            blocking_full: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }
}

#[task]
pub(crate) async fn gauged(#[inject] gauge: &Gauge) {
    gauge.most.fetch_max(gauge.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    gauge.full.add_permits(1);
    gauge.open.acquire().await.unwrap().forget();
    gauge.inside.fetch_sub(1, Ordering::SeqCst);
}

#[task(queue = "blocking")]
pub(crate) fn gauged_blocking(#[inject] gauge: &Gauge) {
    gauge.most_blocking.fetch_max(gauge.inside_blocking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    gauge.blocking_full.add_permits(1);
    while gauge.open.try_acquire().map(|permit| permit.forget()).is_err() {
        std::thread::yield_now();
    }
    gauge.inside_blocking.fetch_sub(1, Ordering::SeqCst);
}
