//! Unique keys: at most one unfinished job of a key.
//!
//! A key has an entry in the shared state, which names the job that holds it. The entry holds
//! nothing by itself. Whether the key is held is asked of the named job: its record and its
//! message. So an entry that a crash left behind holds no key.
//!
//! - A kick takes the key ([`claim`]): it writes the entry, then sends the message.
//! - A worker checks the entry before the body starts ([`admission`]): the job runs only if the
//!   entry names it.
//! - The end of the job frees the key, so that the next kick need not ask.
//!
//! `tests/tests/search_model` searches the orders of the requests of kicks and workers.

mod admission;
mod claim;
mod debounce;
mod entry;
mod fate;
mod key;

pub(crate) use self::admission::{Admission, HeldKey, admit, free};
pub(crate) use self::claim::{Claimed, Keys};
pub(crate) use self::debounce::{Triggered, newest};
pub(crate) use self::entry::Tenant;
pub(crate) use self::key::{of_arguments, of_text};
