//! Jobs that wait for others, and whose kicker is killed between two steps of their kick, or their
//! worker between two steps of the end of a parent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aioq::error::Reason;
use aioq::store::{Expect, Status};
use aioq::tasks::KickOptions;
use aioq::{Message, TaskHandle};
use aioq_tests::{DemoProducer, PATIENCE, ended, until};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::bed::{Bed, ONE_BY_ONE};

/// Time in which workers look at all blocked jobs, also for a second time.
const SWEPT: Duration = Duration::from_secs(180);

impl Bed {
    /// Kicks a job that writes its id, after these.
    async fn append_after(&self, id: &str, parents: &[&str]) -> TaskHandle<()> {
        let args = json!({ "path": self.ledger.path(), "line": id });
        let options = KickOptions::new().id(id).after_ids(parents.iter().copied());
        self.client.kiq_by_name("demo.append", &args, options).await.unwrap()
    }

    /// Starts a process that kicks a job which writes its id, after this parent, and is killed at
    /// this point. Then two minutes pass.
    async fn append_half_kicked(&self, id: &str, parent: &str, point: &str) -> TaskHandle<()> {
        let args = json!({ "path": self.ledger.path(), "line": id });
        let call = json!({ "task": "demo.append", "args": args, "id": id, "after": [parent] });
        let kicker =
            DemoProducer::start(&self.demo, &format!("{point}:1:kill"), vec![call.to_string()]).await;
        let (status, told) = kicker.ended_within(PATIENCE).await;
        assert!(!status.success() && told.is_empty(), "{point}: {status}, {told:?}");
        let jobs = self.client.backend().jobs().unwrap();
        let mut found = jobs.get(&id.into()).await.unwrap().unwrap();
        assert_eq!(found.record.status, Status::Blocked, "{point}");
        let mut message = Message::open(found.record.message.as_ref().unwrap()).unwrap();
        message.kicked_at = Some((SystemTime::now() - Duration::from_secs(120)).into());
        found.record.kicked_at = message.kicked_at;
        found.record.message = Some(message.seal().body);
        jobs.put(Arc::new(found.record), Expect::Revision(found.revision), None).await.unwrap();
        self.client.handle(id).await.unwrap()
    }

    /// Lets a worker do the rest. No edge is left of a job that has started.
    async fn rest(self, last: &TaskHandle<()>, edges_left: usize) -> Vec<String> {
        let worker = self.demo.worker(&ONE_BY_ONE).await;
        timeout(SWEPT, last.wait()).await.expect("the workers have looked at it").unwrap();
        self.until_empty().await;
        until("the edges are gone", async || {
            let edges = self.client.backend().kv().scan("after.").await.unwrap();
            edges.iter().filter(|edge| !edge.value.is_empty()).count() == edges_left
        })
        .await;
        worker.stop().await;
        self.ledger.lines()
    }
}

#[tokio::test]
async fn a_job_runs_after_its_parents_wherever_their_worker_is_killed() {
    let points = ["settled:1", "settled:2", "handed:1", "released:1", "released:2", "sent:1", "sent:2"];
    let runs = points.map(async |point| {
        let bed = Bed::new().await;
        bed.append_after("a", &[]).await;
        // Later than the other, so that the baton is handed on to it.
        let args = json!({ "path": bed.ledger.path(), "line": "b" });
        let later = KickOptions::new().id("b").delay("1s");
        bed.client.kiq_by_name("demo.append", &args, later).await.unwrap();
        let child = bed.append_after("child", &["a", "b"]).await;
        let grandchild = bed.append_after("grandchild", &["child"]).await;
        bed.killed_worker_at(point).await;
        let mut lines = bed.rest(&grandchild, 0).await;
        // A body that had begun beside the end of its parent is run again.
        lines.dedup();
        assert_eq!(ended(&child).await.status, Status::Completed, "{point}");
        assert_eq!(lines, ["a", "b", "child", "grandchild"], "{point}");
    });
    join_all(runs).await;
}

#[tokio::test]
async fn a_job_fails_with_its_parent_wherever_their_worker_is_killed() {
    let runs = ["settled:1", "failed:1", "failed:2"].map(async |point| {
        let bed = Bed::new().await;
        let bad = KickOptions::new().id("bad");
        bed.client.kiq_by_name("demo.fail", &json!({ "message": "broken" }), bad).await.unwrap();
        let child = bed.append_after("first", &["bad"]).await;
        let grandchild = bed.append_after("second", &["first"]).await;
        bed.killed_worker_at(point).await;
        let lines = bed.rest(&grandchild, 2).await;
        for job in [child, grandchild] {
            assert_eq!(ended(&job).await.reason, Some(Reason::Dependency), "{point}");
        }
        assert_eq!(lines, [""; 0], "{point}");
    });
    join_all(runs).await;
}

#[tokio::test]
async fn a_job_whose_kicker_was_killed_is_tied_to_its_parent_by_a_worker() {
    let runs = ["tied", "edged", "marked"].map(async |point| {
        let bed = Bed::new().await;
        bed.append_after("parent", &[]).await;
        let child = bed.append_half_kicked("child", "parent", point).await;
        let grandchild = bed.append_half_kicked("grandchild", "child", point).await;
        let lines = bed.rest(&grandchild, 0).await;
        assert_eq!(ended(&child).await.status, Status::Completed, "{point}");
        assert_eq!(lines, ["parent", "child", "grandchild"], "{point}");
    });
    join_all(runs).await;
}
