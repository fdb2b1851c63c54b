//! NATS JetStream backend of [aioq](https://docs.rs/aioq): jobs, their records and small shared state in three
//! streams of a nats-server 2.14 or newer.
//!
//! ```no_run
//! # async fn example() -> aioq::Result<()> {
//! use aioq::{Backend, Envelope};
//! use aioq::broker::{Expect, Kicked};
//! use aioq_nats::Nats;
//!
//! let backend = Backend::from(Nats::new("nats://localhost:4222"));
//! backend.broker().startup().await?;
//! let kicked = backend.broker().kick(Envelope::new("42".into(), "mail", "body"), Expect::Absent).await?;
//! assert_eq!(kicked, Kicked::New);
//! backend.broker().shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An acknowledged kick is in the server's page cache (or in that of a quorum), and on disk by the server's
//! `sync_interval`, two minutes unless configured. Who needs more runs three replicas on separate machines, or
//! `sync_interval: always`.
//!
//! Who connects needs rights: [`rights`] says which, and has a configuration of a server to start from.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `bench` | no | a place for the command `bench`, and the program without aioq that it measures beside |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod options;

mod wire;

mod link;

mod api;

mod setup;

mod connection;

mod kick;
mod receipt;

mod doctor;
mod listener;

mod broker;
mod jobs;
mod kv;

mod nats;

#[cfg(feature = "bench")]
mod bench;

#[doc = include_str!("rights.md")]
pub mod rights {}

pub use crate::broker::NatsBroker;
pub use crate::jobs::NatsJobs;
pub use crate::kv::NatsKv;
pub use crate::nats::Nats;
