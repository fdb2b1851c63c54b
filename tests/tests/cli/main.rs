//! The command line of a worker binary, and the program `bench`: printed lines, effects and exit
//! codes.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod bench;
mod bench_program;
mod check;
mod deaths;
mod every_command;
mod jobs;
mod kiq;
mod queues;
mod schedules;
mod shared;
mod worker;
