//! Names, subjects, tokens and headers: how jobs, records and keys are addressed on the server.

pub(crate) mod ack_subject;
pub(crate) mod headers;
pub(crate) mod lane;
pub(crate) mod names;
pub(crate) mod subject;
pub(crate) mod token;
