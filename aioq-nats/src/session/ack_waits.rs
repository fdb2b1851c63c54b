//! Values of `ack_wait` in force, by queue: [`AckWaits`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::broker::MAX_ACK_WAIT;

use crate::sync::lock;

/// Value in force for one queue, shared by all listeners of the queue in this process.
#[derive(Clone, Debug)]
pub(crate) struct AckWait(Arc<AtomicU64>);

impl AckWait {
    fn new(value: Duration) -> Self {
        let ack_wait = Self(Arc::default());
        ack_wait.set(value);
        ack_wait
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Sets the value, cut to the maximum: a foreign consumer may have any.
    pub(crate) fn set(&self, value: Duration) {
        self.0.store(millis(value.min(MAX_ACK_WAIT)), Ordering::Relaxed);
    }
}

/// Values in force, by queue.
#[derive(Default)]
pub(crate) struct AckWaits(Mutex<HashMap<String, AckWait>>);

impl AckWaits {
    pub(crate) fn set(&self, queue: &str, value: Duration) -> AckWait {
        let mut values = lock(&self.0);
        let shared = values.entry(queue.to_owned()).or_insert_with(|| AckWait::new(value));
        shared.set(value);
        shared.clone()
    }
}

/// Whole milliseconds.
pub(crate) fn millis(value: Duration) -> u64 {
    u64::try_from(value.as_millis()).unwrap_or(u64::MAX)
}
