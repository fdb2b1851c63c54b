//! A worker that is frozen longer than its lease lasts, just between two steps, and thawed when
//! another has taken its job over: it comes too late for everything.

use aioq::store::{JobRecord, Status};
use aioq::tasks::KickOptions;
use aioq::{Client, JobId};
use aioq_tests::{Demo, DemoWorker, statuses, until};
use serde_json::{Value, json};

/// A job that both workers have had in hand, and the two.
struct Fenced {
    demo: Demo,
    client: Client,
    id: JobId,
    late: DemoWorker,
    next: DemoWorker,
    /// As the worker that took over left it.
    record: JobRecord,
}

impl Fenced {
    /// Freezes a worker where it pauses, until another has ended the job, and lets it go on.
    async fn thawed_at(fault: &str, task: &str, args: impl FnOnce(&Demo) -> Value) -> Self {
        let fenced = Self::at(fault, task, args).await;
        fenced.late.thaw();
        fenced
    }

    /// Freezes a worker where it pauses, until another has ended the job.
    async fn at(fault: &str, task: &str, args: impl FnOnce(&Demo) -> Value) -> Self {
        let demo = Demo::new().await;
        let client = demo.client().await;
        let mut late = demo.worker_with_fault(fault, &["--ack-wait", "1s"]).await;
        let kicked = client.kiq_by_name(task, &args(&demo), KickOptions::new()).await.unwrap();
        late.says("fault point").await;
        late.freeze();
        let next = demo.worker(&["--ack-wait", "1s"]).await;
        until("another worker ends the job", async || {
            client.jobs().get(kicked.id()).await.unwrap().status.is_terminal() && is_empty(&client).await
        })
        .await;
        let (id, record) = (kicked.id().clone(), client.jobs().get(kicked.id()).await.unwrap());
        Self { demo, client, id, late, next, record }
    }

    /// Asserts that the late worker changed nothing.
    async fn assert_unchanged(self) {
        // It ends well only when it has settled what it held.
        self.late.stop().await;
        let record = self.client.jobs().get(&self.id).await.unwrap();
        assert_eq!((record.status, record.attempt), (Status::Completed, self.record.attempt));
        assert_eq!(record.worker_id.as_deref(), Some(&*self.next.id()));
        assert_eq!(
            (record.started_at, record.finished_at),
            (self.record.started_at, self.record.finished_at)
        );
        assert!(is_empty(&self.client).await, "nothing more is to come");
        let statuses = statuses(self.demo.url(), self.demo.prefix()).await;
        assert_eq!(statuses[self.id.as_str()], ["completed"]);
        self.next.stop().await;
    }
}

async fn is_empty(client: &Client) -> bool {
    let depth = &client.backend().broker().depths(&["default".to_owned()]).await.unwrap()[0];
    depth.ready + depth.held + depth.scheduled == 0
}

fn append(demo: &Demo) -> Value {
    with_path(demo, json!({ "line": "a" }))
}

/// Adds the ledger's path to these arguments.
fn with_path(demo: &Demo, mut args: Value) -> Value {
    args["path"] = json!(demo.ledger().path());
    args
}

fn flaky(demo: &Demo) -> Value {
    json!({ "key": "runs", "failures": 1, "dir": demo.path("") })
}

fn runs(demo: &Demo) -> u64 {
    std::fs::metadata(demo.path("runs")).unwrap().len()
}

#[tokio::test]
async fn a_late_result_is_refused_and_logged_once() {
    let mut fenced = Fenced::thawed_at("ran:1:2000", "demo.append", append).await;
    fenced.late.says("took the job over").await;
    assert_eq!(fenced.late.log().matches("took the job over").count(), 1, "{}", fenced.late.log());
    assert_eq!(fenced.demo.ledger().count("a"), 2);
    fenced.assert_unchanged().await;
}

/// Lets the late worker go on only when the record of its job is gone and another job waits under
/// the id. Asserts that it writes nothing.
async fn assert_spares_a_job_kicked_anew(fault: &str, task: &str, args: Value) {
    let mut fenced = Fenced::at(fault, task, |demo| with_path(demo, args)).await;
    let store = fenced.client.backend().jobs().unwrap();
    // As by its TTL, or because there were too many.
    let stored = store.get(&fenced.id).await.unwrap().unwrap();
    assert!(store.remove(&[stored]).await.remove(0).unwrap());
    let options = KickOptions::new().id(fenced.id.clone()).delay("1h");
    let anew = fenced.client.kiq_by_name("demo.append", &append(&fenced.demo), options).await.unwrap();
    assert!(!anew.existing());
    fenced.late.thaw();
    fenced.late.says("took the job over").await;
    fenced.late.stop().await;
    assert!(store.get(&fenced.id).await.unwrap().is_none(), "it waits");
    assert_eq!(fenced.client.jobs().get(&fenced.id).await.unwrap().status, Status::Scheduled);
    fenced.next.stop().await;
}

#[tokio::test]
async fn a_late_result_does_not_become_that_of_a_job_kicked_anew_under_the_id() {
    assert_spares_a_job_kicked_anew("ran:1:2000", "demo.append", json!({ "line": "a" })).await;
}

#[tokio::test]
async fn a_late_running_record_does_not_become_that_of_a_job_kicked_anew_under_the_id() {
    // The body outlasts the half second after which its worker writes that it runs.
    let args = json!({ "line": "a", "ms": 700 });
    assert_spares_a_job_kicked_anew("started:1:2000", "demo.append_slow", args).await;
}

#[tokio::test]
async fn a_body_does_not_start_on_a_lease_that_is_over() {
    let mut fenced = Fenced::thawed_at("fetched:1:stop", "demo.append", append).await;
    fenced.late.says("not started: its lease expired").await;
    assert_eq!(fenced.demo.ledger().count("a"), 1);
    fenced.assert_unchanged().await;
}

#[tokio::test]
async fn a_late_ack_changes_nothing() {
    let fenced = Fenced::thawed_at("saved:1:2000", "demo.append", append).await;
    assert_eq!(fenced.demo.ledger().count("a"), 1);
    fenced.late.stop().await;
    let record = fenced.client.jobs().get(&fenced.id).await.unwrap();
    assert_eq!(record.status, Status::Completed);
    fenced.next.stop().await;
}

#[tokio::test]
async fn a_late_failure_schedules_no_retry() {
    // The second run of the first attempt goes well.
    let mut fenced = Fenced::thawed_at("ran:1:2000", "demo.flaky", flaky).await;
    fenced.late.says("took the job over").await;
    assert_eq!((runs(&fenced.demo), fenced.record.attempt), (2, 1));
    fenced.assert_unchanged().await;
}

#[tokio::test]
async fn a_retry_that_was_announced_before_the_freeze_is_kicked_once() {
    let fenced = Fenced::thawed_at("announced:1:2000", "demo.flaky", flaky).await;
    assert_eq!((runs(&fenced.demo), fenced.record.attempt), (2, 2));
    fenced.assert_unchanged().await;
}

#[tokio::test]
async fn a_late_ack_of_the_attempt_before_does_not_take_the_next_one_away() {
    let fenced = Fenced::thawed_at("replaced:1:2000", "demo.flaky", flaky).await;
    assert_eq!((runs(&fenced.demo), fenced.record.attempt), (2, 2));
    fenced.assert_unchanged().await;
}
