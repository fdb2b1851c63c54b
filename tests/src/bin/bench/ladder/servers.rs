//! Where the ladder stands: memory, and servers that keep messages ever more safely.

use std::io::Result;

use aioq_tests::{NatsServer, unique_prefix};

use crate::place::Place;

/// A backend, by how safe it keeps what it has confirmed.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Gone with the process.
    Memory,
    /// In the page cache, on disk within two minutes: what nats-server does unless told otherwise.
    File,
    /// On disk before it is confirmed.
    Synced,
    /// In the page caches of two of three servers.
    Replicated,
}

impl Step {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::File, Self::Synced, Self::Replicated];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File => "nats",
            Self::Synced => "nats_synced",
            Self::Replicated => "nats_replicated",
        }
    }

    /// How many times slower than memory it is, roughly: so that each run takes about a second.
    pub(super) fn slower(self) -> usize {
        match self {
            Self::Memory => 1,
            Self::File => 4,
            Self::Synced => 20,
            Self::Replicated => 10,
        }
    }

    /// Starts the servers.
    pub(super) async fn start(self) -> Result<Place> {
        Ok(match self {
            Self::Memory => Place::memory(),
            Self::File => Place::on(self.name(), NatsServer::start().await?),
            Self::Synced => Place::on(self.name(), synced().await?),
            Self::Replicated => {
                let servers = NatsServer::cluster().await?;
                let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
                Place::nats(self.name(), urls.join(","), servers)
            }
        })
    }
}

async fn synced() -> Result<NatsServer> {
    let config = std::env::temp_dir().join(format!("{}.conf", unique_prefix()));
    std::fs::write(&config, "jetstream { sync_interval: always }\n")?;
    let started = NatsServer::start_with(&["-c", &config.to_string_lossy()]).await;
    // It has read it.
    std::fs::remove_file(config)?;
    started
}
