//! NATS JetStream backend of [aioq](https://docs.rs/aioq): jobs, their records and small shared
//! state in three streams of a nats-server 2.14 or newer.
//!
//! ```no_run
//! # async fn example() -> aioq::Result<()> {
//! use aioq::message::Envelope;
//! use aioq::Backend;
//! use aioq::broker::{Expect, Kicked};
//! use aioq_nats::Nats;
//!
//! let backend = Backend::from(Nats::new("nats://localhost:4222"));
//! backend.broker().startup().await?;
//! let envelope = Envelope::new("42".into(), "mail", "body");
//! let kicked = backend.broker().kick(envelope, Expect::Absent).await?;
//! assert_eq!(kicked, Kicked::New);
//! backend.broker().shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An acknowledged kick is in the page cache of the server, or of a quorum of servers. It reaches
//! the disk within the server's `sync_interval`, two minutes by default. For more safety, run three
//! replicas on separate machines, or set `sync_interval: always`.
//!
//! [`rights`] lists the permissions that producers, workers and operators need, with a server
//! configuration to start from.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `bench` | no | a site for the command `bench`, and a comparison program without aioq |

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod options;
mod sync;

mod wire;

mod link;

mod api;

mod session;

mod keys;

mod setup;

mod connection;

mod kick;

mod receipt;

mod doctor;
mod listener;

mod broker;
mod jobs;
mod kv;

mod backend;

#[cfg(feature = "bench")]
mod bench;

mod nats;

#[doc = include_str!("rights.md")]
pub mod rights {}

pub use crate::broker::NatsBroker;
pub use crate::jobs::NatsJobs;
pub use crate::kv::NatsKv;
pub use crate::nats::Nats;
