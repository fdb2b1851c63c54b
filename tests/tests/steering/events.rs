//! Events, progress and log lines of jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use aioq::events::{EventFilter, EventKind};
use aioq::store::Status;
use aioq_tests::{Probe, on_each_backend, soon};
use futures_util::StreamExt as _;

use crate::bodies::{add, doomed, gated, talkative};
use crate::worker;

on_each_backend! {
    async fn progress_and_logs_are_seen_while_the_body_runs(bed: Bed) {
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let client = bed.client().await;
        let handle = client.kiq(talkative()).await.unwrap();
        soon(async {
            while handle.record().await.unwrap().progress.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let record = handle.record().await.unwrap();
        assert_eq!((record.status, record.progress.unwrap().note.unwrap().as_str()), (Status::Running, "one"));
        assert_eq!(record.logs[0].line, "line one");
        probe.gate.add_permits(1);
        let record = soon(handle.wait()).await.unwrap();
        let progress = record.progress.unwrap();
        assert_eq!((progress.done, progress.total, progress.note), (3, 3, None));
        running.stop().await;
    }

    async fn events_are_told_across_clients(bed: Bed) {
        let client = bed.client().await;
        let mut ends = client.events(EventFilter::new().queue("default")).await.unwrap();
        let mut all = client.events(EventFilter::all()).await.unwrap();
        let probe = Probe::default();
        let running = worker(&bed, &probe).await;
        let producer = bed.client().await;
        producer.kiq(add(1, 2).id("1")).await.unwrap();
        let event = soon(ends.next()).await.unwrap();
        assert_eq!((event.kind, event.id.as_str(), event.task.as_str()), (EventKind::Completed, "1", "add"));
        producer.kiq(doomed("no").id("2")).await.unwrap();
        let event = soon(ends.next()).await.unwrap();
        assert_eq!((event.kind, event.error.as_deref()), (EventKind::Failed, Some("String: no")));
        let mut kinds = BTreeSet::new();
        while kinds.len() < 4 {
            let event = soon(all.next()).await.unwrap();
            kinds.insert(format!("{} {:?}", event.id, event.kind));
        }
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["1 Completed", "1 Kicked", "2 Failed", "2 Kicked"]);
        let long = producer.kiq(gated().id("3")).await.unwrap();
        let kind = async |stream: &mut futures_util::stream::BoxStream<'static, aioq::events::Event>| {
            soon(stream.next()).await.unwrap().kind
        };
        assert_eq!(kind(&mut all).await, EventKind::Kicked);
        assert_eq!(kind(&mut all).await, EventKind::Started);
        assert!(long.abort("20s").await.unwrap());
        assert_eq!(kind(&mut all).await, EventKind::Cancelled);
        running.stop().await;
    }
}
