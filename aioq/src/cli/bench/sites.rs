//! Sites of the works: a new one for each run, cleaned after it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::raw;
use crate::app::App;
use crate::backend::{Backend, OpenBackend};
use crate::bench::{BenchSite, Plan, Sample, Work};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::JobFilter;
use crate::memory::Memory;

/// Makes sites of one backend, one at a time.
pub(super) struct Sites {
    backend: Arc<dyn OpenBackend>,
    name: &'static str,
    /// The site that is not clean.
    current: Option<Site>,
}

impl Sites {
    /// Sites on the backend that the program is configured for.
    pub(super) fn of(app: App) -> Self {
        let backend: Arc<dyn OpenBackend> = app.into_backend().into();
        let name = backend.open().broker().info().name;
        Self { backend, name, current: None }
    }

    /// The name of the backend.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Default number of jobs per run: about a second of work.
    pub(super) fn usual_jobs(&self) -> usize {
        if self.is_memory() { 100_000 } else { 30_000 }
    }

    fn is_memory(&self) -> bool {
        self.backend.scheme() == Some("memory")
    }

    /// Checks that the backend is reachable and fit for use.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(super) async fn check(&mut self) -> Result<()> {
        if let Err(error) = self.next().await {
            // A server that is away is not cleaned: that would only wait again. The error of the
            // start is reported, not the error of the cleaning.
            if !error.is_outage() {
                let _ = self.clean().await;
            }
            self.current = None;
            return Err(error);
        }
        self.clean().await
    }

    /// A new site, prepared for a work. The site before it is clean.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(super) async fn next(&mut self) -> Result<&Site> {
        let site = match self.backend.bench_site()? {
            Some(site) => Site::new(site, None),
            None if self.is_memory() => Site::new(Box::new(InMemory(Memory::new())), None),
            None => Site::aside(Arc::clone(&self.backend)),
        };
        let site = self.current.insert(site);
        site.prepare().await?;
        Ok(site)
    }

    /// Removes everything from the current site.
    pub(super) async fn clean(&mut self) -> Result<()> {
        if let Some(site) = &mut self.current {
            // What an interrupted preparation has asked the server for may come at any moment.
            let _ = site.prepare().await;
            site.site.clean().await?;
        }
        self.current = None;
        Ok(())
    }
}

/// Site of one run of a work.
pub(super) struct Site {
    site: Box<dyn BenchSite>,
    queue: Option<String>,
    /// The first connection, which declares what the backend needs. A task, because it must end
    /// also if the run is interrupted: nothing may be declared after the site was cleaned.
    preparation: Option<JoinHandle<Result<()>>>,
}

impl Site {
    fn new(site: Box<dyn BenchSite>, queue: Option<String>) -> Self {
        let backend = site.backend();
        let preparation = tokio::spawn(async { Client::connect(backend).await?.shutdown().await });
        Self { site, queue, preparation: Some(preparation) }
    }

    /// A site among the jobs of the program: a queue with a unique name.
    fn aside(backend: Arc<dyn OpenBackend>) -> Self {
        let queue = format!("bench-{}", uuid::Uuid::now_v7().simple());
        Self::new(Box::new(Aside { backend, queue: queue.clone() }), Some(queue))
    }

    /// Waits for the end of the preparation. Cancel safe.
    async fn prepare(&mut self) -> Result<()> {
        let Some(preparation) = &mut self.preparation else { return Ok(()) };
        let prepared = preparation.await;
        self.preparation = None;
        // Nothing aborts the task, and a panic was reported when it happened.
        prepared
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Backend, "the preparation of the site panicked")))
    }

    /// A new client of this site.
    pub(super) async fn client(&self, plan: Plan) -> Result<Client> {
        Client::builder(self.site.backend()).records(plan.records).connect().await
    }

    /// The queue of the jobs, if it is not the queue of the task.
    pub(super) fn queue(&self) -> Option<&str> {
        self.queue.as_deref()
    }

    /// Runs the raw program of a work, if there is one.
    pub(super) async fn raw(&self, work: Work, plan: Plan) -> Result<Option<Sample>> {
        self.site.raw(work, plan).await
    }
}

/// Site in a new memory.
struct InMemory(Memory);

#[async_trait]
impl BenchSite for InMemory {
    fn backend(&self) -> Backend {
        self.0.open()
    }

    async fn raw(&self, work: Work, plan: Plan) -> Result<Option<Sample>> {
        raw::run(work, plan).await
    }

    async fn clean(&self) -> Result<()> {
        Ok(())
    }
}

/// Site in a queue of its own, for a backend without a bench site.
struct Aside {
    backend: Arc<dyn OpenBackend>,
    queue: String,
}

#[async_trait]
impl BenchSite for Aside {
    fn backend(&self) -> Backend {
        self.backend.open()
    }

    async fn raw(&self, _work: Work, _plan: Plan) -> Result<Option<Sample>> {
        Ok(None)
    }

    async fn clean(&self) -> Result<()> {
        let client = Client::connect(self.backend()).await?;
        client.queues().purge(&self.queue).await?;
        let mine = JobFilter::new().queue(&self.queue);
        loop {
            let page = client.jobs().list(mine.clone(), 1000).await?;
            if page.jobs.is_empty() {
                return client.shutdown().await;
            }
            let mut removed = 0;
            for job in &page.jobs {
                removed += usize::from(client.jobs().remove(&job.id).await?);
            }
            if removed == 0 {
                let why = format!(
                    "{} jobs of the queue `{}` are still held by an interrupted worker: purge the queue later",
                    page.jobs.len(),
                    self.queue
                );
                return Err(Error::new(ErrorKind::Backend, why));
            }
        }
    }
}
