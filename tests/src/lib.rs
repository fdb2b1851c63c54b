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
mod lease;
mod logs;
mod nats_binary;
mod nats_server;
mod patience;
mod probe;
mod process;
mod proxy;
mod records;
mod running;
pub mod rush;
mod until;

pub use crate::bed::Bed;
pub use crate::demo::{
    Demo, DemoCommand, DemoEvents, DemoKick, DemoProducer, DemoWorker, Ledger, Ran, demo_binary,
    producer_binary, run_demo,
};
pub use crate::held_store::HeldStore;
pub use crate::lease::lease_passes;
pub use crate::logs::{capture_logs, logged};
pub use crate::nats_binary::nats_server;
pub use crate::nats_server::{NatsServer, unique_prefix};
pub use crate::patience::{PATIENCE, soon};
pub use crate::probe::Probe;
pub use crate::proxy::Proxy;
pub use crate::records::statuses;
pub use crate::running::Running;
pub use crate::until::{ended, record_when, until, until_within};
