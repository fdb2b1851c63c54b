//! Messages and records as bytes: taskiq's format, with aioq's own data in labels and extra keys.

mod labels;
mod message;
mod record;

pub(crate) use self::message::Known;
