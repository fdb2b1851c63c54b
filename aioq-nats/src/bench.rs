//! The place where the command `bench` measures on NATS: a prefix of its own, and a program without aioq beside it.

mod raw;

use std::sync::Arc;

use aioq::bench::{BenchSite, Plan, Sample, Work};
use aioq::{Backend, OpenBackend, Result, async_trait};

use crate::api::call_bare;
use crate::error::Refusal;
use crate::link::{Deadline, Link};
use crate::nats::Nats;
use crate::options::Options;
use crate::wire::subject::Names;

/// Streams under a prefix that nobody else has.
pub(crate) struct Site {
    options: Options,
    names: Names,
}

impl Site {
    /// A site on the server that these options lead to; nothing is made there yet.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        // The end of an id is drawn at random.
        let id = aioq::bench::RawMessage::new_id();
        let prefix = format!("bench-{}", &id[id.len() - 12..]);
        let names = Names::new(&prefix)?;
        Ok(Self { options: Options { prefix, ..options.clone() }, names })
    }
}

#[async_trait]
impl BenchSite for Site {
    fn backend(&self) -> Backend {
        Nats::from(self.options.clone()).open()
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
            match call_bare(link, deadline, &format!("STREAM.DELETE.{stream}"), None).await? {
                Err(refusal) if refusal.reason != Refusal::STREAM_NOT_FOUND => return Err(refusal.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
