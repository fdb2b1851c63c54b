//! Watches of kicks.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::backend::Backend;
use crate::broker::{Expect, Queued};
use crate::testing::conformance::kit::{envelope, kick, later, ok, soon, with_priority};

async fn watch(backend: &Backend) -> BoxStream<'static, Queued> {
    ok(backend.broker().watch().await, "watch")
}

/// Reads until all these ids were seen. Returns the seen ids.
async fn seen(watch: &mut BoxStream<'static, Queued>, wanted: &[&str]) -> Vec<Queued> {
    let mut missing: BTreeSet<&str> = wanted.iter().copied().collect();
    let mut seen = Vec::new();
    while !missing.is_empty() {
        let next = soon(&format!("{missing:?} to be seen"), watch.next()).await;
        seen.push(next.expect("the watch goes on"));
        missing.retain(|id| seen.last().is_none_or(|row| row.id.as_str() != *id));
    }
    seen
}

/// Every watcher sees each message that is kicked after `watch` returned, alone or in bulk, delayed
/// or not, to any queue, and none from before.
pub async fn a_watcher_sees_what_is_kicked(backend: &Backend) {
    kick(backend, envelope("q", "before")).await;
    let mut watches = [watch(backend).await, watch(backend).await];
    kick(backend, with_priority("q", "low", 9)).await;
    kick(backend, later("q", "later", Duration::from_secs(3600))).await;
    let bulk = ["a.b", "a b", "*"].map(|queue| (envelope(queue, &format!("in {queue}")), Expect::Any));
    for fate in backend.broker().kick_all(bulk.to_vec()).await {
        ok(fate, "a bulk kick");
    }
    kick(backend, envelope("q", "last")).await;

    for watch in &mut watches {
        let rows = seen(watch, &["low", "later", "in a.b", "in a b", "in *", "last"]).await;
        for row in rows {
            let (id, queue) = (row.id.as_str(), row.queue.as_str());
            assert_ne!(id, "before", "it was kicked before");
            assert_eq!(queue, id.strip_prefix("in ").unwrap_or("q"), "the queue of `{id}`");
            assert_eq!(row.body, format!("body of {id}"));
            assert_eq!(row.ready, id != "later", "whether `{id}` is ready");
        }
    }
}

/// A dropped watch, and one that nobody reads, affect neither producers nor other watchers.
pub async fn a_watcher_that_does_not_read_holds_nobody_up(backend: &Backend) {
    let mut watches = [watch(backend).await, watch(backend).await];
    drop(watch(backend).await);
    kick(backend, envelope("q", "first")).await;
    seen(&mut watches[0], &["first"]).await;
    let bulk = (0..6000).map(|index| (envelope("q", &format!("m-{index}")), Expect::Any));
    for fate in soon("a bulk kick", backend.broker().kick_all(bulk.collect())).await {
        ok(fate, "a bulk kick");
    }
    soon("a kick", kick(backend, envelope("q", "last"))).await;
    drop(watches);
    let mut fresh = watch(backend).await;
    kick(backend, envelope("q", "after that")).await;
    seen(&mut fresh, &["after that"]).await;
}

/// A shutdown ends the streams of all watchers.
pub async fn a_shutdown_ends_the_watches_of_messages(backend: &Backend) {
    let mut watches = [watch(backend).await, watch(backend).await];
    kick(backend, envelope("q", "1")).await;
    seen(&mut watches[0], &["1"]).await;
    ok(backend.shutdown().await, "shutdown");
    for watch in watches {
        soon("the watch to end", watch.for_each(async |_| ())).await;
    }
    ok(backend.startup().await, "another startup");
    let mut watch = watch(backend).await;
    kick(backend, envelope("q", "2")).await;
    seen(&mut watch, &["2"]).await;
}
