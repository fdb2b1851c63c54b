//! The NATS backend against real servers.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod access;
mod auth;
mod broker;
mod cluster;
mod conformance;
mod doctor;
mod faults;
mod looking;
mod startup;
mod storage;
mod stores;
mod support;
