//! Site of the command `bench` on NATS: a prefix of its own, and a comparison program without aioq.

mod raw;

use std::sync::Arc;

use aioq::bench::{BenchSite, Plan, Sample, Work};
use aioq::{Backend, Result, async_trait};

use crate::api::call_setup;
use crate::backend;
use crate::error::Refusal;
use crate::link::{Deadline, Link};
use crate::options::Options;
use crate::wire::names::Names;

/// Streams under a unique prefix.
pub(crate) struct Site {
    options: Options,
    names: Names,
}

impl Site {
    /// A site on the server of these options. Declares nothing yet.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        // The end of an id is random.
        let id = aioq::bench::RawMessage::new_id();
        let prefix = format!("bench-{}", &id[id.len() - 12..]);
        let names = Names::new(&prefix)?;
        Ok(Self { options: Options { prefix, ..options.clone() }, names })
    }
}

#[async_trait]
impl BenchSite for Site {
    fn backend(&self) -> Backend {
        backend::open(self.options.clone())
    }

    async fn raw(&self, work: Work, plan: Plan) -> Result<Option<Sample>> {
        raw::run(self, work, plan).await
    }

    async fn clean(&self) -> Result<()> {
        let deadline = Deadline::within(self.options.deadline);
        let link = Link::open(&self.options, deadline, &Arc::default()).await?;
        let cleaned = self.delete_streams(&link, deadline).await;
        cleaned.and(link.close(deadline).await)
    }
}

impl Site {
    async fn delete_streams(&self, link: &Link, deadline: Deadline) -> Result<()> {
        for stream in [&self.names.jobs, &self.names.records, &self.names.kv] {
            match call_setup(link, deadline, &format!("STREAM.DELETE.{stream}"), None).await? {
                Err(refusal) if refusal.reason != Refusal::STREAM_NOT_FOUND => return Err(refusal.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
