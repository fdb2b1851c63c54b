//! Names, subjects and tokens: how jobs, records and keys are addressed on the server.

pub(crate) mod ack_subject;
pub(crate) mod subject;
pub(crate) mod token;
