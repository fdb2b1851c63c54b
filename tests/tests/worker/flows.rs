//! Flows: jobs that take the results of others.

use aioq::client::{KickHook, KickNext, Sent};
use aioq::error::{JobError, Reason};
use aioq::flow::{Flow, join};
use aioq::message::Codec;
use aioq::prelude::*;
use aioq::tasks::{Call, OnParentFailure};
use aioq::{Error, ErrorKind, JobId, Message};
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend, until};
use serde::{Deserialize, Serialize};

use crate::dependencies::blob;
use crate::probed;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    url: String,
    body: Vec<u8>,
}

#[task(queue = "default")]
async fn fetch(url: &str) -> TaskResult<Page> {
    match url {
        "" => Err(TaskError::fatal("no such page")),
        url => Ok(Page { url: url.to_owned(), body: vec![0, 159, 255] }),
    }
}

#[task(queue = "default")]
fn measure(page: Page, factor: usize, unit: &str) -> String {
    format!("{} {unit} of {}", page.body.len() * factor, page.url)
}

#[task(queue = "default")]
async fn shout(text: &str) -> String {
    text.to_uppercase()
}

#[task(queue = "default")]
async fn square(n: u64) -> u64 {
    n * n
}

#[task(queue = "default")]
async fn total(squares: Vec<u64>) -> u64 {
    squares.iter().sum()
}

#[task(queue = "default")]
async fn pair(text: String, number: u64) -> String {
    format!("{text} {number}")
}

#[task(queue = "default")]
async fn report(page: Result<Page, JobError>) -> String {
    page.map_or_else(|error| error.message, |page| page.url)
}

#[task(queue = "default")]
async fn report_all(pages: Vec<Result<Page, JobError>>) -> Vec<bool> {
    pages.iter().map(Result::is_ok).collect()
}

#[task(queue = "default")]
async fn lengths(blobs: Vec<String>) -> usize {
    blobs.iter().map(String::len).sum()
}

/// Fails until it is rerun by hand.
#[task(queue = "default")]
async fn second_try(n: u64, #[inject] ctx: &Context) -> TaskResult<u64> {
    if ctx.message().supersedes.is_some_and(|record| record > 0) {
        Ok(n)
    } else {
        Err(TaskError::fatal("not yet"))
    }
}

#[task(queue = "default", unique(by = n))]
async fn only(n: u64) -> u64 {
    n
}

async fn start(bed: &Bed) -> Running {
    Running::start(probed(bed).0).await
}

async fn failed_for_parent<O>(handle: &TaskHandle<O>) -> JobError {
    let record = ended(handle).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Dependency)), "{record:?}");
    *record.error.unwrap()
}

on_each_backend! {
    async fn each_job_takes_the_result_of_the_one_before(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let flow = fetch("a.example").then(measure::with(2_usize, "bytes")).then(shout).label("last", true);
        let handle = client.kiq_flow(flow).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), "6 BYTES OF A.EXAMPLE");
        let record = handle.record().await.unwrap();
        assert!(record.labels.contains_key("last"));
        assert_eq!(record.arguments.unwrap().to_json(), r#"{"text":"6 bytes of a.example"}"#);
        let before = client.jobs().get(&record.depends_on[0]).await.unwrap();
        assert!(before.labels.is_empty());
        let bodiless = client.scope(async { square(2).then(square).kiq().await }).await.unwrap();
        assert_eq!(bodiless.result_within(PATIENCE).await.unwrap(), 16);
        worker.stop().await;
    }

    async fn a_join_takes_the_results_of_a_list_or_each_of_a_tuple(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let squares: Vec<_> = (1..=100).map(square).collect();
        let sum = client.kiq_flow(join(squares).then(total).then(square)).await.unwrap();
        let kicked = client.kiq(square(5)).await.unwrap();
        let both = join((fetch("a").then(measure::with(1_usize, "bytes")), kicked));
        let both = client.kiq_flow(both.then(pair)).await.unwrap();
        let array = client.kiq_flow(join([square(3), square(4)]).then(total)).await.unwrap();
        let none = client.kiq_flow(join(Vec::<TaskHandle<u64>>::new()).then(total)).await.unwrap();
        assert_eq!(sum.result_within(PATIENCE).await.unwrap(), 338_350 * 338_350);
        assert_eq!(both.result_within(PATIENCE).await.unwrap(), "3 bytes of a 25");
        assert_eq!(array.result_within(PATIENCE).await.unwrap(), 25);
        assert_eq!(none.result_within(PATIENCE).await.unwrap(), 0);
        worker.stop().await;
    }

    async fn a_shared_part_of_a_flow_is_one_job(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let page = fetch("a").shared();
        let (one, two) = (measure::with(1_usize, "bytes"), measure::with(2_usize, "halves"));
        let flow = join([page.clone().then(one), page.then(two)]).then(lengths);
        let handle = client.kiq_flow(flow).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), "3 bytes of a".len() + "6 halves of a".len());
        let mut roots = Vec::new();
        for parent in handle.record().await.unwrap().depends_on {
            roots.extend(client.jobs().get(&parent).await.unwrap().depends_on);
        }
        assert!(roots.len() == 2 && roots[0] == roots[1], "{roots:?}");
        // The same job twice.
        let twice = square(3).shared();
        let sum = client.kiq_flow(join([twice.clone(), twice]).then(total)).await.unwrap();
        assert_eq!(sum.result_within(PATIENCE).await.unwrap(), 18);
        worker.stop().await;
    }

    async fn a_failure_fails_what_takes_its_result_and_is_told_to_what_takes_any_end(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let bad = client.kiq_flow(fetch("").then(measure::with(1_usize, "bytes")).then(shout)).await.unwrap();
        assert!(failed_for_parent(&bad).await.chain[0].ends_with("failed: no such page"));
        for (url, reported) in [("", "no such page"), ("a", "a")] {
            let handle = client.kiq_flow(fetch(url).then_settled(report)).await.unwrap();
            assert_eq!(handle.result_within(PATIENCE).await.unwrap(), reported);
            let handle = client.kiq_flow(fetch(url).finally(square(3))).await.unwrap();
            assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 9);
        }
        let all = join(["a", "", "c"].map(fetch)).then_settled(report_all);
        let all = client.kiq_flow(all).await.unwrap();
        assert_eq!(all.result_within(PATIENCE).await.unwrap(), [true, false, true]);
        worker.stop().await;
    }

    async fn a_flow_goes_on_from_a_job_that_has_ended_or_not(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let kicked = client.kiq(square(4)).await.unwrap();
        let early = client.kiq_flow(kicked.clone().then(square)).await.unwrap();
        assert_eq!(early.result_within(PATIENCE).await.unwrap(), 256);
        let late = client.kiq_flow(kicked.clone().then(square)).await.unwrap();
        assert_eq!(late.result_within(PATIENCE).await.unwrap(), 256);
        assert!(kicked.remove().await.unwrap());
        let gone = client.kiq_flow(kicked.then(square)).await.unwrap();
        assert!(failed_for_parent(&gone).await.message.contains("is unknown"));
        worker.stop().await;
    }

    async fn a_rerun_of_a_failed_job_hands_its_result_to_what_failed_for_it(bed: Bed) {
        let worker = start(&bed).await;
        let client = &worker.client;
        let first = second_try(7).id("first");
        let handle = client.kiq_flow(join((shout("a"), first.then(square))).then(pair)).await.unwrap();
        failed_for_parent(&handle).await;
        assert!(client.jobs().retry(&JobId::from("first")).await.unwrap());
        until("it has run", async || handle.get_result().await.is_ok()).await;
        assert_eq!(handle.get_result().await.unwrap(), "A 49");
        worker.stop().await;
    }

    async fn results_that_are_together_too_large_fail_the_job(bed: Bed) {
        let client = Client::builder(bed.backend()).max_payload_bytes(100_000).connect().await.unwrap();
        let worker = Running::start(probed(&bed).0.max_payload_bytes(100_000)).await;
        let fits = client.kiq_flow(join([blob(40_000), blob(40_000)]).then(lengths)).await.unwrap();
        assert_eq!(fits.result_within(PATIENCE).await.unwrap(), 80_000);
        let large = join([blob(60_000), blob(60_000)]).then(lengths).then(square_of_length);
        let large = client.kiq_flow(large).await.unwrap();
        let error = failed_for_parent(&large).await;
        assert!(error.chain[0].contains("return references"), "{error:?}");
        worker.stop().await;
    }

    async fn a_flow_that_cannot_be_kicked_as_a_whole_starts_no_job(bed: Bed) {
        let refusing = Client::builder(bed.backend()).hook(RefuseLast).connect().await.unwrap();
        let flow = square(1).id("root").then(square).id("middle").then(square).id("last");
        assert_eq!(refusing.kiq_flow(flow).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let client = bed.client().await;
        for id in ["root", "middle", "last"] {
            let found = client.jobs().get(&JobId::from(id)).await;
            assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound, "{id}");
        }
    }

    async fn a_flow_that_cannot_be_meant_is_refused(bed: Bed) {
        let client = bed.client().await;
        let refused = async |flow: Flow<square>, why: &str| {
            let error = client.kiq_flow(flow).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(why), "{error}");
        };
        let runs = square(2).then(square).on_parent_failure(OnParentFailure::Run);
        refused(runs, "use `then_settled`").await;
        refused(square(2).then(only).then(square), "give it one with `.unique_key(..)`").await;
        refused(only(2).then(square), "cannot begin a flow").await;
        refused(square(2).then(|n: u64| square(n + 1)), "as `then(square)`").await;
        refused(square(2).then(next_square), "as `then(square)`").await;
        let large = shout("x".repeat(2_000_000)).then(shout);
        assert_eq!(client.kiq_flow(large).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(client.jobs().list(JobFilter::new(), 10).await.unwrap().jobs.is_empty());
    }

    async fn the_same_flow_kicked_twice_is_there_once(bed: Bed) {
        let client = bed.client().await;
        let flow = || join((shout("a").id("a"), square(3).id("b").then(square).id("c"))).then(pair).id("d");
        let first = client.kiq_flow(flow()).await.unwrap();
        assert!(!first.existing());
        assert!(client.kiq_flow(flow()).await.unwrap().existing());
        let worker = start(&bed).await;
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), "A 81");
        assert!(client.kiq_flow(flow()).await.unwrap().existing());
        worker.stop().await;
    }

    async fn a_flow_may_begin_with_a_job_that_exists(bed: Bed) {
        let client = bed.client().await;
        let root = || square(3).id("root");
        let root_handle = client.kiq(root()).await.unwrap();
        let waiting = client.kiq_flow(root().then(square)).await.unwrap();
        let worker = start(&bed).await;
        assert_eq!(waiting.result_within(PATIENCE).await.unwrap(), 81);
        ended(&root_handle).await;
        let late = client.kiq_flow(root().then(square)).await.unwrap();
        assert_eq!(late.result_within(PATIENCE).await.unwrap(), 81);
        worker.stop().await;
    }

    async fn a_unique_job_of_a_flow_may_be_another_one_that_exists(bed: Bed) {
        let client = bed.client().await;
        let key = "one";
        let holder = client.kiq(square(2).delay("1h").unique_key(key)).await.unwrap();
        let flow = square(5).then(square).unique_key(key).then(square);
        let last = client.kiq_flow(flow).await.unwrap();
        assert_eq!(last.record().await.unwrap().depends_on, [holder.id().clone()]);
        assert!(holder.cancel().await.unwrap());
        assert!(failed_for_parent(&last).await.message.ends_with("was cancelled"));
    }

    async fn the_codec_of_a_client_is_that_of_its_flows(bed: Bed) {
        let worker = start(&bed).await;
        let client = Client::builder(bed.backend()).codec(Codec::Json).connect().await.unwrap();
        let flow = join((fetch("a").then(measure::with(2_usize, "bytes")), square(3))).then(pair);
        let handle = client.kiq_flow(flow).await.unwrap();
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), "6 bytes of a 9");
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_failure_reaches_the_end_of_a_long_chain() {
    const LINKS: usize = 5_000;
    let worker = start(&Bed::memory()).await;
    let mut flow = second_try(7).id("first").then(square_mod);
    for _ in 2..LINKS {
        flow = flow.then(square_mod);
    }
    let last = worker.client.kiq_flow(flow).await.unwrap();
    let error = failed_for_parent(&last).await;
    assert_eq!(error.chain, ["its parent `first` failed: not yet"]);
    assert!(worker.client.jobs().retry(&JobId::from("first")).await.unwrap());
    until("the chain has completed", async || {
        last.is_ready().await.unwrap() && last.get_result().await.is_ok()
    })
    .await;
    worker.stop().await;
}

#[task(queue = "default")]
async fn square_mod(n: u64) -> u64 {
    n * n % 1_000_003
}

#[task(queue = "default")]
async fn square_of_length(length: usize) -> usize {
    length * length
}

fn next_square(n: u64) -> Call<square> {
    square(n + 1)
}

/// Refuses the job with the id `last`.
struct RefuseLast;

#[aioq::async_trait]
impl KickHook for RefuseLast {
    async fn kick(&self, message: Message, next: KickNext<'_>) -> Result<Sent, Error> {
        if message.id.as_str() == "last" {
            return Err(Error::new(ErrorKind::InvalidArgument, "not this one"));
        }
        next.run(message).await
    }
}
