//! JSON form of a record, for people and tools.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::JobRecord;
use crate::message::UniqueKey;

impl Serialize for JobRecord {
    /// The fields that `jobs get --json` prints. The names are stable, absent values are `null`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("JobRecord", 23)?;
        out.serialize_field("id", &self.id)?;
        out.serialize_field("task", &self.task)?;
        out.serialize_field("queue", &self.queue)?;
        out.serialize_field("args", &self.arguments)?;
        out.serialize_field("labels", &self.labels)?;
        out.serialize_field("priority", &self.priority)?;
        out.serialize_field("status", &self.status)?;
        out.serialize_field("attempt", &self.attempt)?;
        out.serialize_field("max_retries", &self.max_retries)?;
        out.serialize_field("kicked_at", &self.kicked_at)?;
        out.serialize_field("run_at", &self.run_at)?;
        out.serialize_field("started_at", &self.started_at)?;
        out.serialize_field("finished_at", &self.finished_at)?;
        out.serialize_field("worker_id", &self.worker_id)?;
        out.serialize_field("result", &self.result)?;
        out.serialize_field("error", &self.error)?;
        out.serialize_field("errors", &self.errors)?;
        out.serialize_field("reason", &self.reason)?;
        out.serialize_field("progress", &self.progress)?;
        out.serialize_field("logs", &self.logs)?;
        out.serialize_field("depends_on", &self.depends_on)?;
        out.serialize_field("unique_key", &self.unique_key.as_ref().map(UniqueKey::as_str))?;
        out.serialize_field("dead_lettered", &self.dead_lettered)?;
        out.end()
    }
}
