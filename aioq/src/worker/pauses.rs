//! The paused queues, as a worker knows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::Shared;
use super::run::{AbortOnDrop, spawn_beside};
use crate::client::Client;
use crate::error::Result;
use crate::queues::PAUSES;

/// Interval between reads without a notice of a change: the longest delay after a broken
/// connection.
const RECHECK: Duration = Duration::from_secs(10);

/// The paused queues, kept up to date.
pub(super) struct Pauses {
    paused: watch::Receiver<BTreeSet<String>>,
    _following: AbortOnDrop,
}

impl Pauses {
    /// Reads the paused queues, and follows the changes until it is dropped.
    pub(super) async fn follow(shared: &Arc<Shared>) -> Result<Self> {
        let client = shared.scope.client.clone();
        // Watched first, read second: a change in between is seen by one of the two.
        let changes = client.backend().kv().watch(PAUSES).await?;
        let (told, paused) = watch::channel(client.queues().paused().await?);
        let following = spawn_beside(shared, follow(client, changes, told));
        Ok(Self { paused, _following: following })
    }

    /// The queues among these that are not paused.
    pub(super) fn active(&mut self, queues: &[String]) -> Vec<String> {
        let paused = self.paused.borrow_and_update();
        queues.iter().filter(|queue| !paused.contains(*queue)).cloned().collect()
    }

    /// Resolves when other queues are paused than [`active`](Self::active) last saw.
    pub(super) async fn changed(&mut self) {
        if self.paused.changed().await.is_err() {
            // The follower has ended with its worker.
            std::future::pending().await
        }
    }
}

async fn follow(
    client: Client,
    mut changes: futures_util::stream::BoxStream<'static, crate::store::KvChange>,
    told: watch::Sender<BTreeSet<String>>,
) {
    loop {
        match tokio::time::timeout(RECHECK, changes.next()).await {
            // A notice is only a reason to read: any user who may publish there can forge it.
            Ok(Some(_)) => reread(&client, &told).await,
            Ok(None) => {
                // A stream that has ended must not be polled again.
                tokio::time::sleep(Duration::from_secs(1)).await;
                changes = match client.backend().kv().watch(PAUSES).await {
                    Ok(anew) => anew,
                    Err(_) => futures_util::stream::empty().boxed(),
                };
                reread(&client, &told).await;
            }
            Err(_) => reread(&client, &told).await,
        }
    }
}

async fn reread(client: &Client, told: &watch::Sender<BTreeSet<String>>) {
    match client.queues().paused().await {
        Ok(now) => drop(told.send_if_modified(|paused| {
            let changed = *paused != now;
            *paused = now;
            changed
        })),
        Err(error) => tracing::debug!(%error, "could not read the paused queues, trying again"),
    }
}
