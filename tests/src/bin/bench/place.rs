//! Where it is measured.

use std::time::Duration;

use aioq::backend::OpenBackend;
use aioq::bench::{BenchSite, Stopwatch};
use aioq::clap::{self, ArgMatches, Args, Command, FromArgMatches};
use aioq::{Backend, BoxError, ConnectionArgs, Memory, Result};
use aioq_nats::Nats;
use aioq_tests::NatsServer;

/// Deadline of a request.
const DEADLINE: Duration = Duration::from_secs(30);

/// The connection options that every command takes, read as a choice of places.
pub(crate) struct PlaceArgs(ConnectionArgs);

impl FromArgMatches for PlaceArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ConnectionArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Nothing is added: the options are there, for all commands.
impl Args for PlaceArgs {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl PlaceArgs {
    /// The places that were chosen; unless any was, memory and a server that is started for it.
    pub(crate) async fn places(&self) -> Result<Vec<Place>, BoxError> {
        Ok(match &self.0.nats {
            _ if self.0.memory => vec![Place::memory()],
            Some(url) => vec![Place::nats("nats", url.clone(), Vec::new())],
            None => vec![Place::memory(), Place::on("nats", NatsServer::start().await?)],
        })
    }
}

/// A backend to measure on.
pub(crate) struct Place {
    /// As reports call it.
    pub(crate) name: &'static str,
    nats: Option<(String, Nats)>,
    /// Those that were started for it.
    servers: Vec<NatsServer>,
}

impl Place {
    /// In memory.
    pub(crate) fn memory() -> Self {
        Self { name: "memory", nats: None, servers: Vec::new() }
    }

    /// On a server that was started for it.
    pub(crate) fn on(name: &'static str, server: NatsServer) -> Self {
        Self::nats(name, server.url(), vec![server])
    }

    /// On the servers at these URLs; those that were started for it, which end with it.
    pub(crate) fn nats(name: &'static str, urls: String, servers: Vec<NatsServer>) -> Self {
        // A cluster takes its time to elect; it keeps as many copies as it can.
        let nats = Nats::new(&urls).replicas(servers.len().max(1)).deadline(DEADLINE);
        Self { name, nats: Some((urls, nats)), servers }
    }

    /// The options of a command line that lead there.
    pub(crate) fn options(&self) -> Vec<String> {
        match &self.nats {
            None => vec!["--memory".to_owned()],
            Some((urls, _)) => vec!["--nats".to_owned(), urls.clone()],
        }
    }

    /// Kills the servers that were started for it, and starts them again. False if there are none.
    pub(crate) async fn restart(&mut self) -> std::io::Result<bool> {
        for server in &mut self.servers {
            server.restart().await?;
        }
        Ok(!self.servers.is_empty())
    }

    /// The processor time of its servers so far; `None` if there are none, or nobody tells.
    pub(crate) fn servers_cpu(&self) -> Option<Duration> {
        let times: Option<Vec<Duration>> = self.servers.iter().map(NatsServer::cpu_time).collect();
        times.filter(|times| !times.is_empty()).map(|times| times.into_iter().sum())
    }

    /// The resident memory of what keeps the jobs: this process, or its servers; `None` if nobody
    /// tells.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        if self.is_memory() {
            let own = Stopwatch::start().stop(0).rss_mib?;
            return Some((own * 1024.0 * 1024.0) as u64);
        }
        let sizes: Option<Vec<u64>> = self.servers.iter().map(NatsServer::rss_bytes).collect();
        sizes.filter(|sizes| !sizes.is_empty()).map(|sizes| sizes.into_iter().sum())
    }

    pub(crate) fn is_memory(&self) -> bool {
        self.nats.is_none()
    }

    /// An empty part of it; `records` of ended jobs have room there.
    pub(crate) fn site(&self, records: usize) -> Result<Site> {
        let site = self.nats.as_ref().map(|(_, nats)| nats.bench_site()).transpose()?.flatten();
        // Twice as many, because no part of the records may exceed its share.
        let memory = || Site::Memory(Memory::new().max_records(2 * records));
        Ok(site.map_or_else(memory, Site::Nats))
    }
}

/// An empty part of a place.
pub(crate) enum Site {
    Memory(Memory),
    Nats(Box<dyn BenchSite>),
}

impl Site {
    /// The backend here, opened anew.
    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Memory(memory) => memory.open(),
            Self::Nats(site) => site.backend(),
        }
    }

    /// Removes all that is here.
    pub(crate) async fn clean(self) -> Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Nats(site) => site.clean().await,
        }
    }
}
