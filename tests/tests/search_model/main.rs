//! Protocols of many requests, searched: kicks, workers and reruns by hand, in every order of their
//! requests, with crashes between two requests.
//!
//! - [`desk`]: each request of each actor waits here until the search lets it through.
//! - [`link`]: the backend of one actor, whose requests go to the desk.
//! - [`search`]: takes every choice in a world, or draws them at random.
//! - [`unique`], [`dependencies`], [`schedules`]: a world each. Its actors, and what must hold at
//!   every step and at rest.
//!
//! The actors are the clients and workers of the library, over a backend in memory.

#![allow(clippy::unwrap_used)]

mod dependencies;
mod desk;
mod link;
mod schedules;
mod search;
mod unique;
