//! Test support: a real nats-server for each test that wants one.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! let server = aioq_tests::NatsServer::shared().await?;
//! let nats = aioq_nats::Nats::new(server.url()).prefix(aioq_tests::unique_prefix());
//! # Ok(())
//! # }
//! ```

mod bed;
pub mod chaos;
mod demo;
pub mod faults;
mod held_store;
mod logs;
mod nats_binary;
mod nats_server;
mod process;
mod producer;
mod proxy;
mod records;

pub use crate::bed::Bed;
pub use crate::demo::{
    Demo, DemoCommand, DemoEvents, DemoWorker, Ledger, Ran, demo_binary, producer_binary, run_demo, until,
};
pub use crate::held_store::HeldStore;
pub use crate::logs::{capture_logs, logged};
pub use crate::nats_binary::nats_server;
pub use crate::nats_server::{NatsServer, unique_prefix};
pub use crate::producer::DemoProducer;
pub use crate::proxy::Proxy;
pub use crate::records::statuses;
