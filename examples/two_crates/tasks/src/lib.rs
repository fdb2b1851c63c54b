//! The tasks, in a crate of their own: the producer names them to kick them, the worker links them to run them.
//!
//! What runs in production, and what it needs, is here once. A producer that must not even build the bodies
//! kicks by name instead: `client.kiq_by_name("orders.total", ..)`.

use aioq::task;
use serde::{Deserialize, Serialize};

/// A line of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// What it costs, in cents.
    pub cents: u64,
    /// How many.
    pub count: u64,
}

/// What the orders of a customer cost, in cents.
#[task(name = "orders.total", queue = "orders")]
pub async fn total(lines: &[Line]) -> Result<u64, String> {
    let total =
        lines.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.cents.checked_mul(line.count)?));
    total.ok_or_else(|| "an order of that size is a mistake".to_owned())
}
