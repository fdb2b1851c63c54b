//! Results of parents, which become arguments of the job that waits for them.

use std::collections::HashMap;

use super::edge::{self, Yielded};
use super::{Dependencies, contended};
use crate::codec::{Codec, Payload};
use crate::error::{JobError, Result};
use crate::message::{Message, TakeOf};
use crate::store::JobRecord;

/// Number of edges to read at a time.
const READ_AT_ONCE: usize = 1_000;

impl Dependencies<'_> {
    /// Adds the results of its parents to the arguments of a job. The error is the job's: together
    /// they are too large.
    pub(super) async fn hand_over(
        self,
        record: &JobRecord,
        mut message: Message,
    ) -> Result<Result<Message, JobError>> {
        if record.takes.is_empty() {
            return Ok(Ok(message));
        }
        let Some(yielded) = self.yielded_to(record).await? else { return Ok(Err(self.too_large())) };
        let codec = message.arguments.codec();
        let mut added = Vec::with_capacity(record.takes.len());
        for take in &record.takes {
            let values = take.of.places().iter().filter_map(|place| yielded.get(place));
            let values = values.map(|value| value.as_argument(take.settled, codec));
            let values = values.collect::<Result<Vec<Payload>>>()?;
            let value = match &take.of {
                TakeOf::One(_) => values.into_iter().next(),
                TakeOf::Each(_) => Some(Payload::array(codec, &values)),
            };
            // Without a value the body would not start: its argument is missing.
            added.extend(value.map(|value| (&take.argument, value)));
        }
        message.arguments = message.arguments.with(added)?;
        if message.arguments.len() > self.max_payload_bytes {
            return Ok(Err(self.too_large()));
        }
        Ok(Ok(message))
    }

    /// What the parents of a job have yielded, by their places; `None` if it is too much.
    async fn yielded_to(self, record: &JobRecord) -> Result<Option<HashMap<usize, Yielded>>> {
        let kv = &*self.backend.kv;
        let mut places: Vec<usize> = record.takes.iter().flat_map(|take| take.of.places()).copied().collect();
        places.sort_unstable();
        places.dedup();
        places.retain(|place| *place < record.depends_on.len());
        let (mut yielded, mut bytes) = (HashMap::new(), 0);
        for places in places.chunks(READ_AT_ONCE) {
            let parents = places.iter().map(|place| &record.depends_on[*place]);
            let found = edge::get_all(kv, parents, &record.id).await?;
            for (place, found) in places.iter().zip(found) {
                // A sweep draws an edge again that is missing.
                let value = found.and_then(|found| found.edge.yielded);
                let value = value.ok_or_else(|| contended(&record.id))?;
                if let Yielded::Result(result) = &value {
                    bytes += result.len();
                }
                if bytes > self.max_payload_bytes {
                    return Ok(None);
                }
                yielded.insert(*place, value);
            }
        }
        Ok(Some(yielded))
    }

    /// The error of a job that would take more than its arguments may have.
    pub(super) fn too_large(self) -> JobError {
        let limit = self.max_payload_bytes;
        let why = format!(
            "the results of its parents have more than {limit} bytes, the limit of arguments: \
             return references to the data instead"
        );
        JobError::new("ResultsTooLarge", why)
    }
}

impl Yielded {
    /// The value as an argument: itself, or a `Result` of it if the job takes that.
    fn as_argument(&self, settled: bool, codec: Codec) -> Result<Payload> {
        match self {
            Self::Result(bytes) => {
                let value = Payload::from_bytes(Codec::MessagePack, bytes.clone()).recoded(codec);
                Ok(if settled { value.in_variant("Ok") } else { value })
            }
            Self::Error(error) => codec.encode(&Err::<(), _>(error)),
        }
    }
}
