//! The steps within a worker: how much it confirms and writes down.

use std::time::Duration;

use aioq::bench::{Sample, Stopwatch, TEXT, Tally};
use aioq::store::RecordLevel;
use aioq::tasks::{Call, Task};
use aioq::{Client, Result, Worker};

use crate::jobs::{app, bare, noop};
use crate::place::{Place, Site};

/// Confirmations and records that a worker makes for each job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// Acked when it arrives: a crash loses it.
    Bare,
    /// Acked when it has run.
    Acknowledged,
    /// And its result is stored before that.
    Results,
    /// With all that is known of it.
    Full,
}

impl Rung {
    pub(super) const ALL: [Self; 4] = [Self::Bare, Self::Acknowledged, Self::Results, Self::Full];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Acknowledged => "acknowledged",
            Self::Results => "results",
            Self::Full => "full",
        }
    }

    /// True if there is a result to wait for.
    pub(super) fn has_results(self) -> bool {
        matches!(self, Self::Results | Self::Full)
    }

    fn records(self) -> RecordLevel {
        match self {
            Self::Bare | Self::Acknowledged => RecordLevel::None,
            Self::Results => RecordLevel::Results,
            Self::Full => RecordLevel::Full,
        }
    }

    pub(super) async fn client(self, site: &Site) -> Result<Client> {
        Client::builder(site.backend()).records(self.records()).connect().await
    }

    pub(super) async fn worker(self, site: &Site, tally: &Tally) -> Result<Worker> {
        app(site.backend(), tally).records(self.records()).worker().await
    }

    /// Kicks a job, and waits for its result if there will be one.
    pub(super) async fn kick(self, client: Client, number: u64) -> Result<()> {
        match self {
            Self::Bare => client.kiq(bare(number, TEXT)).await.map(drop),
            Self::Acknowledged => client.kiq(noop(number, TEXT)).await.map(drop),
            Self::Results | Self::Full => client.kiq(noop(number, TEXT)).await?.result().await,
        }
    }

    async fn kick_all(self, client: &Client, jobs: usize) -> Result<()> {
        async fn all<T: Task, S>(client: &Client, calls: impl Iterator<Item = Call<T, S>>) -> Result<()> {
            client.kiq_all(calls).await.into_iter().try_for_each(|kicked| kicked.map(drop))
        }
        let numbers = 0..jobs as u64;
        match self {
            Self::Bare => all(client, numbers.map(|number| bare(number, TEXT))).await,
            _ => all(client, numbers.map(|number| noop(number, TEXT))).await,
        }
    }
}

/// A full queue, emptied.
pub(super) struct Drain {
    pub(super) sample: Sample,
    servers_cpu: Option<Duration>,
}

impl Drain {
    pub(super) fn server_cpu_s_per_million(&self) -> Option<f64> {
        Some(self.servers_cpu?.as_secs_f64() / self.sample.jobs as f64 * 1e6)
    }
}

/// Empties a full queue.
pub(super) async fn drain(place: &Place, rung: Rung, jobs: usize) -> Result<Drain> {
    let site = place.site(jobs)?;
    let client = rung.client(&site).await?;
    rung.kick_all(&client, jobs).await?;
    let tally = Tally::of(jobs);
    let worker = rung.worker(&site, &tally).await?;
    let own = worker.client().clone();
    let before = place.servers_cpu();
    let watch = Stopwatch::start();
    worker.run(tally.full()).await?;
    let sample = watch.stop(jobs);
    let servers_cpu = place.servers_cpu().zip(before).map(|(after, before)| after - before);
    own.shutdown().await?;
    client.shutdown().await?;
    site.clean().await?;
    Ok(Drain { sample, servers_cpu })
}
