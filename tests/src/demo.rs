//! The demo program of the examples, as processes of its own: [`Demo`], [`DemoWorker`],
//! [`DemoEvents`].

mod app;
mod ledger;
mod process;
mod producer;
mod program;

pub use self::app::{Demo, Ran, run_demo};
pub use self::ledger::Ledger;
pub use self::process::{DemoCommand, DemoEvents, DemoKick, DemoWorker};
pub use self::producer::DemoProducer;
pub use self::program::{demo_binary, producer_binary};
