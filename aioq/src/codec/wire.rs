//! The form of messages and records on the wire: taskiq's, with what is ours in labels and extra keys.

mod labels;
mod message;
mod record;

pub(crate) use self::message::{Known, decode_message, encode_message};
pub(crate) use self::record::{decode_record, encode_record};
