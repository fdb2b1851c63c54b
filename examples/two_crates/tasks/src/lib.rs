//! The tasks, in a crate of their own: the producer names them to kick them, the worker links them
//! to run them.
//!
//! The bodies and their dependencies are in one place. A producer that must not even build them
//! kicks by name instead: `client.kiq_by_name("orders.total", ..)`.

use aioq::task;
use serde::{Deserialize, Serialize};

/// A line of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Price of one, in cents.
    pub cents: u64,
    /// Number of items.
    pub count: u64,
}

/// Price of all orders of a customer, in cents.
#[task(name = "orders.total", queue = "orders")]
pub async fn total(lines: &[Line]) -> Result<u64, String> {
    let total =
        lines.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.cents.checked_mul(line.count)?));
    total.ok_or_else(|| "an order of that size is a mistake".to_owned())
}
