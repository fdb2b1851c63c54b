//! One run of a job, as its worker and its body both see it: its state, its slot, its thread.

mod blocking;
mod slots;
mod state;

pub(crate) use self::blocking::{BlockingPool, LentThread, Reservation};
pub(crate) use self::slots::{LentSlot, OncePerMinute, Slots};
pub(crate) use self::state::{RunState, StopReason};
