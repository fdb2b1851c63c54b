//! Unique jobs: one unfinished job of a key, and the key free at every end.

use std::time::Duration;

use aioq::broker::Expect;
use aioq::prelude::*;
use aioq::{Client, ErrorKind, JobId, Timestamp};
use aioq_tests::{Bed, PATIENCE, Probe, Running, ended, on_each_backend, record_when, soon, until};

use crate::{options, probed, redeliver, short_lease};

#[task(unique(by = doc))]
async fn index(doc: u32, how: &str, #[inject] ctx: &Context, #[inject] probe: &Probe) -> TaskResult<u32> {
    probe.run(ctx.attempt());
    match how {
        "hold" => probe.gate.acquire().await.map_err(TaskError::from)?.forget(),
        "fail" => return Err(TaskError::fatal("broken")),
        "snooze" if ctx.attempt() == 1 && probe.runs() == 1 => return Err(TaskError::snooze("1h")),
        _ => {}
    }
    Ok(doc)
}

#[task(unique(by = doc, within = "1h"))]
async fn export(doc: u32, fails: bool) -> TaskResult<u32> {
    if fails { Err(TaskError::fatal("broken")) } else { Ok(doc) }
}

#[task(unique(until = "start"))]
async fn rebuild(doc: u32, #[inject] ctx: &Context, #[inject] probe: &Probe) -> u32 {
    probe.run(ctx.attempt());
    probe.gate.acquire().await.unwrap().forget();
    doc
}

#[task]
async fn plain(n: u32) -> u32 {
    n
}

/// Runs the newest text, a moment after the last kick of its document.
#[task(unique(by = doc, debounce = "200ms", max = "1h"))]
async fn publish(doc: u32, text: &str, #[inject] probe: &Probe) -> String {
    probe.run(doc);
    text.to_owned()
}

/// Runs the newest text, two seconds after the last kick of its document, or ten after the first.
#[task(unique(by = doc, debounce = "2s", max = "10s"))]
async fn announce(doc: u32, text: &str, #[inject] probe: &Probe) -> String {
    probe.run(doc);
    text.to_owned()
}

/// As `announce`, soon.
#[task(unique(by = doc, debounce = "100ms", max = "300ms"))]
async fn notify(doc: u32, text: &str, #[inject] probe: &Probe) -> String {
    probe.run(doc);
    text.to_owned()
}

/// The job that a kick of the key of `index(doc, ..)` makes; it must be new.
async fn kick_anew(client: &Client, doc: u32, how: &str, after: &str) -> TaskHandle<u32> {
    let handle = client.kiq(index(doc, how)).await.unwrap();
    assert!(!handle.existing(), "the key is free after {after}");
    handle
}

async fn holder(client: &Client, doc: u32) -> Option<JobId> {
    client.jobs().unique_holder(&index(doc, "").unique().unwrap()).await.unwrap()
}

/// Kicks a key from many clients at once, and makes sure that it is one job.
async fn make_one_job(clients: &[Client]) {
    let kicks = (0..64).map(|n| clients[n % clients.len()].kiq(index(1, "")));
    let handles = futures_util::future::join_all(kicks).await;
    let handles: Vec<_> = handles.into_iter().map(Result::unwrap).collect();
    assert!(handles.iter().all(|handle| handle.id() == handles[0].id()));
    assert_eq!(handles.iter().filter(|handle| !handle.existing()).count(), 1);
}

on_each_backend! {
    async fn a_second_kick_of_a_key_gets_the_first_job(bed: Bed) {
        let client = bed.client().await;
        let first = client.kiq(index(1, "hold")).await.unwrap();
        let second = client.kiq(index(1, "other arguments").queue("other")).await.unwrap();
        assert!(second.existing() && !first.existing());
        assert_eq!((second.id(), second.queue()), (first.id(), "default"));
        assert!(!client.kiq(index(2, "hold")).await.unwrap().existing(), "another key");
        assert_eq!(holder(&client, 1).await.as_ref(), Some(first.id()));
        assert_eq!(holder(&client, 3).await, None);
        let key = first.record().await.unwrap().unique_key.unwrap();
        assert_eq!(key, index(1, "").unique().unwrap());
        assert_eq!(plain(1).unique().unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    async fn many_kicks_at_once_make_one_job(bed: Bed) {
        let clients = futures_util::future::join_all((0..4).map(|_| bed.client())).await;
        make_one_job(&clients).await;
    }

    async fn many_kicks_at_once_of_a_key_whose_kicker_died_make_one_job(bed: Bed) {
        let clients = futures_util::future::join_all((0..4).map(|_| bed.client())).await;
        let dead = clients[0].kiq(index(1, "")).await.unwrap();
        let broker = clients[0].backend().broker();
        let queued = broker.find(dead.id()).await.unwrap().unwrap();
        broker.remove(&[queued]).await.remove(0).unwrap();
        make_one_job(&clients).await;
    }

    async fn every_end_frees_the_key(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let (client, jobs) = (&worker.client, worker.client.jobs());
        kick_anew(client, 1, "", "nothing").await.result_within(PATIENCE).await.unwrap();
        ended(&kick_anew(client, 1, "fail", "a success").await).await;
        let held = kick_anew(client, 1, "hold", "a failure").await;
        probe.until_runs(3).await;
        assert_eq!(client.kiq(index(1, "")).await.unwrap().id(), held.id(), "held while it runs");
        assert!(held.abort(PATIENCE).await.unwrap());
        let snoozed = kick_anew(client, 1, "hold", "an abort").await;
        probe.until_runs(4).await;
        probe.gate.add_permits(1);
        snoozed.result_within(PATIENCE).await.unwrap();
        worker.stop().await;
        // No worker from here on.
        let client = bed.client().await;
        let waiting = kick_anew(&client, 1, "", "a stop").await;
        assert!(waiting.cancel().await.unwrap());
        let expired = client.kiq(index(1, "").ttl("1ms")).await.unwrap();
        assert!(!expired.existing(), "the key is free after a cancel");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(client.jobs().remove(expired.id()).await.unwrap());
        kick_anew(&client, 1, "", "an expiry and a removal").await;
        client.queues().purge("default").await.unwrap();
        kick_anew(&client, 1, "", "a purge").await;
        assert_eq!(jobs.unique_holder(&index(2, "").unique().unwrap()).await.unwrap(), None);
    }

    async fn a_job_that_waits_for_its_next_run_holds_its_key(bed: Bed) {
        let (app, _) = probed(&bed);
        let worker = Running::start(app).await;
        let handle = worker.client.kiq(index(1, "snooze")).await.unwrap();
        record_when(&worker.client, handle.id(), |record| record.status == Status::Scheduled).await;
        assert_eq!(worker.client.kiq(index(1, "")).await.unwrap().id(), handle.id());
        worker.stop().await;
    }

    async fn a_window_holds_the_key_of_a_completed_job_only(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let client = &worker.client;
        let failed = client.kiq(export(1, true)).await.unwrap();
        ended(&failed).await;
        let first = client.kiq(export(1, false)).await.unwrap();
        assert!(!first.existing(), "a failed job holds nothing");
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), 1);
        let second = client.kiq(export(1, false)).await.unwrap();
        assert_eq!((second.existing(), second.id()), (true, first.id()));
        assert_eq!(second.result_within(PATIENCE).await.unwrap(), 1);
        // The window holds although the record is gone.
        assert!(client.jobs().remove(first.id()).await.unwrap());
        assert_eq!(client.kiq(export(1, false)).await.unwrap().id(), first.id());
        worker.stop().await;
    }

    async fn a_key_of_the_kick_holds_for_any_task(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let client = &worker.client;
        let first = client.kiq(plain(1).unique_key("exports").unique_for("1h")).await.unwrap();
        first.result_within(PATIENCE).await.unwrap();
        let second = client.kiq(plain(2).unique_key("exports")).await.unwrap();
        assert_eq!((second.existing(), second.id()), (true, first.id()));
        assert!(!client.kiq(plain(2)).await.unwrap().existing());
        worker.stop().await;
    }

    async fn a_key_that_is_free_at_the_start_lets_one_run_and_one_wait(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(options().concurrency(1))).await;
        let client = &worker.client;
        let first = client.kiq(rebuild(1)).await.unwrap();
        probe.until_runs(1).await;
        let second = client.kiq(rebuild(1)).await.unwrap();
        assert!(!second.existing(), "the first has started");
        assert_eq!(client.kiq(rebuild(1)).await.unwrap().id(), second.id(), "the second waits");
        probe.gate.add_permits(2);
        first.result_within(PATIENCE).await.unwrap();
        second.result_within(PATIENCE).await.unwrap();
        worker.stop().await;
    }

    async fn a_job_whose_key_was_taken_does_not_run(bed: Bed) {
        let client = bed.client().await;
        let first = client.kiq(index(1, "")).await.unwrap();
        // A kick that arrives late, after another one has given it up.
        let key = index(1, "").unique().unwrap();
        let kv = client.backend().kv();
        let entry = kv.get(&format!("unique.{key}")).await.unwrap().unwrap();
        kv.delete(&entry.key, Expect::Any).await.unwrap();
        let rival = client.kiq(index(1, "")).await.unwrap();
        assert!(!rival.existing());
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let record = ended(&first).await;
        assert_eq!(record.status, Status::Cancelled);
        let error = record.error.unwrap();
        assert_eq!(error.exc_type, "Unique");
        assert_eq!(error.message, format!("its key was taken by `{}`", rival.id()));
        rival.result_within(PATIENCE).await.unwrap();
        assert_eq!(probe.runs(), 1);
        worker.stop().await;
    }

    async fn a_rerun_takes_its_key_again_or_is_refused(bed: Bed) {
        let worker = Running::start(probed(&bed).0).await;
        let client = &worker.client;
        let failed = client.kiq(index(1, "fail")).await.unwrap();
        ended(&failed).await;
        let other = kick_anew(client, 1, "hold", "a failure").await;
        let refused = failed.retry().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains(&format!("job `{}` has its unique key", other.id())), "{refused}");
        assert!(other.abort(PATIENCE).await.unwrap());
        assert!(failed.retry().await.unwrap());
        record_when(client, failed.id(), |record| record.errors.len() == 2).await;
        worker.stop().await;
    }

    async fn a_redelivered_unique_job_runs_again(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(index(1, "")).await.unwrap();
        redeliver(&client, "default").await;
        let (app, probe) = probed(&bed);
        let worker = Running::start(app.worker_options(short_lease())).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), 1);
        assert_eq!(probe.runs(), 1);
        worker.stop().await;
    }

    async fn the_earlier_of_two_of_one_key_in_a_bulk_wins(bed: Bed) {
        let client = bed.client().await;
        let handles = client.kiq_all([index(1, "a"), index(2, "b"), index(1, "c")]).await;
        let handles: Vec<_> = handles.into_iter().map(Result::unwrap).collect();
        assert_eq!(handles.iter().map(TaskHandle::existing).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(handles[2].id(), handles[0].id());
    }

    async fn of_many_triggers_the_newest_runs_once(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let client = &worker.client;
        let first = client.kiq(publish(1, "a")).await.unwrap();
        let second = client.kiq(publish(1, "b")).await.unwrap();
        let third = client.kiq(publish(1, "c")).await.unwrap();
        let other = client.kiq(publish(2, "x")).await.unwrap();
        assert_eq!([first.existing(), second.existing(), third.existing()], [false, true, true]);
        assert!(first.id() == second.id() && first.id() == third.id() && first.id() != other.id());
        assert_eq!(first.result_within(PATIENCE).await.unwrap(), "c");
        assert_eq!(other.result_within(PATIENCE).await.unwrap(), "x");
        assert_eq!(probe.runs(), 2);
        let next = client.kiq(publish(1, "d")).await.unwrap();
        assert!(!next.existing(), "the burst is over");
        assert_eq!(next.result_within(PATIENCE).await.unwrap(), "d");
        worker.stop().await;
    }

    async fn a_trigger_that_comes_while_its_job_runs_begins_the_next_burst(bed: Bed) {
        let client = bed.client().await;
        let first = client.kiq(publish(1, "a")).await.unwrap();
        assert!(first.cancel().await.unwrap());
        let second = client.kiq(publish(1, "b")).await.unwrap();
        assert!(!second.existing(), "a cancelled job ends its burst");
        let worker = Running::start(probed(&bed).0).await;
        assert_eq!(second.result_within(PATIENCE).await.unwrap(), "b");
        worker.stop().await;
    }

    async fn a_debounced_job_that_waits_shows_its_newest_arguments(bed: Bed) {
        let client = bed.client().await;
        let first = client.kiq(publish(1, "a")).await.unwrap();
        let shown = async || {
            let one = first.record().await.unwrap();
            let listed = client.jobs().list(JobFilter::new(), 10).await.unwrap().jobs;
            assert_eq!(listed.len(), 1);
            assert_eq!((&listed[0].arguments, &listed[0].labels), (&one.arguments, &one.labels));
            let label = one.labels.get("from").cloned();
            (one.arguments.unwrap().to_json(), label)
        };
        assert_eq!(shown().await, (r#"{"doc":1,"text":"a"}"#.to_owned(), None));
        for text in ["b", "c"] {
            client.kiq(publish(1, text).label("from", text)).await.unwrap();
            let arguments = format!(r#"{{"doc":1,"text":"{text}"}}"#);
            assert_eq!(shown().await, (arguments, Some(text.into())));
        }
        let labelled = |value: &str| JobFilter::new().label("from", value);
        assert_eq!(client.jobs().list(labelled("c"), 10).await.unwrap().jobs.len(), 1);
        assert_eq!(client.jobs().list(labelled("b"), 10).await.unwrap().jobs.len(), 0);
    }

    async fn a_debounced_job_that_was_cancelled_is_rerun_with_its_newest_arguments(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(publish(1, "a")).await.unwrap();
        client.kiq(publish(1, "b")).await.unwrap();
        assert!(handle.cancel().await.unwrap());
        assert_eq!(handle.record().await.unwrap().arguments.unwrap().to_json(), r#"{"doc":1,"text":"b"}"#);
        assert!(handle.retry().await.unwrap());
        let worker = Running::start(probed(&bed).0).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), "b");
        worker.stop().await;
    }

    async fn a_trigger_does_not_expire_with_those_before_it(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(publish(1, "a").ttl("1ms")).await.unwrap();
        client.kiq(publish(1, "b")).await.unwrap();
        // The first message expires, and is due.
        until("it is ready", async || {
            client.backend().broker().depths(&["default".to_owned()]).await.unwrap()[0].ready == 1
        })
        .await;
        assert_ne!(handle.status().await.unwrap(), Status::Expired);
        let worker = Running::start(probed(&bed).0).await;
        assert_eq!(handle.result_within(PATIENCE).await.unwrap(), "b");
        worker.stop().await;
    }

    async fn a_trigger_expires_with_its_own_ttl(bed: Bed) {
        let client = bed.client().await;
        let handle = client.kiq(publish(1, "a")).await.unwrap();
        client.kiq(publish(1, "b").ttl("1ms")).await.unwrap();
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        assert_eq!(ended(&handle).await.status, Status::Expired);
        assert_eq!(probe.runs(), 0);
        let next = client.kiq(publish(1, "c")).await.unwrap();
        assert!(!next.existing());
        assert_eq!(next.result_within(PATIENCE).await.unwrap(), "c");
        worker.stop().await;
    }

    async fn a_storm_of_triggers_does_not_starve_its_job(bed: Bed) {
        let (app, probe) = probed(&bed);
        let worker = Running::start(app).await;
        let clients = futures_util::future::join_all((0..4).map(|_| bed.client())).await;
        let storm = futures_util::future::join_all(clients.iter().map(async |client| {
            let mut triggers = 0;
            while probe.runs() < 4 {
                client.kiq(notify(1, triggers.to_string())).await.unwrap();
                triggers += 1;
                // On memory nothing else makes way.
                tokio::task::yield_now().await;
            }
            triggers
        }));
        let triggers: usize = soon(storm).await.into_iter().sum();
        println!("{triggers} triggers");
        assert!(triggers > 8, "it was a storm");
        let last = clients[0].kiq(notify(1, "last")).await.unwrap();
        assert_eq!(last.result_within(PATIENCE).await.unwrap(), "last");
        worker.stop().await;
    }

    async fn a_second_kick_under_one_id_and_key_leaves_the_key_with_the_job(bed: Bed) {
        let client = bed.client().await;
        let kicks = (0..8).map(|_| client.kiq(index(1, "").id("one")));
        for handle in futures_util::future::join_all(kicks).await {
            assert_eq!(handle.unwrap().id().as_str(), "one");
        }
        assert_eq!(client.kiq(index(1, "")).await.unwrap().id().as_str(), "one", "it still has the key");
    }

    async fn an_id_counts_before_a_key(bed: Bed) {
        let client = bed.client().await;
        let first = client.kiq(index(1, "").id("one")).await.unwrap();
        let again = client.kiq(index(2, "").id("one")).await.unwrap();
        assert_eq!((again.existing(), again.id()), (true, first.id()));
        assert!(!client.kiq(index(2, "")).await.unwrap().existing(), "the refused kick holds no key");
        assert_eq!(client.kiq(index(1, "").id("two")).await.unwrap().id(), first.id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_kick_waits_a_second_for_the_job_of_each_kick_that_took_the_key_before_it() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let (broker, kv) = (client.backend().broker(), client.backend().kv());
    // A kick that takes the key, and whose message never comes.
    let take = async || {
        for entry in kv.scan("unique.").await.unwrap() {
            kv.delete(&entry.key, Expect::Any).await.unwrap();
        }
        let dead = client.kiq(index(1, "")).await.unwrap();
        let queued = broker.find(dead.id()).await.unwrap().unwrap();
        broker.remove(&[queued]).await.remove(0).unwrap();
    };
    take().await;
    let began = tokio::time::Instant::now();
    let (kicked, ()) = tokio::join!(client.kiq(index(1, "")), async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        take().await;
    });
    assert!(!kicked.unwrap().existing());
    let waited = began.elapsed();
    // A look may come up to a pause after the other took the key.
    assert!(waited >= Duration::from_millis(1900) && waited <= Duration::from_millis(2300), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn triggers_put_a_job_off_for_its_longest_time_and_no_longer() {
    const TRIGGERS: usize = 60;
    let worker = Running::start(probed(&Bed::memory()).0).await;
    // Of each job: the time of its first trigger, and the text of its last one.
    let mut jobs = Vec::<(TaskHandle<String>, Timestamp, String)>::new();
    for n in 0..TRIGGERS {
        let text = n.to_string();
        let handle = worker.client.kiq(announce(1, &text)).await.unwrap();
        match jobs.last_mut().filter(|(job, ..)| job.id() == handle.id()) {
            Some((.., last)) => *last = text,
            None => jobs.push((handle, Timestamp::now(), text)),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(jobs.len(), TRIGGERS.div_ceil(10), "one job in ten seconds");
    for (job, first, last) in jobs {
        assert_eq!(job.result().await.unwrap(), last);
        let waited = job.record().await.unwrap().started_at.unwrap().since(first);
        assert!(waited <= Duration::from_millis(10_100), "{waited:?}");
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_less_than_a_second_counts_from_the_last_trigger() {
    let worker = Running::start(probed(&Bed::memory()).0).await;
    let handle = worker.client.kiq(publish(1, "first")).await.unwrap();
    for n in 0..20 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let joined = worker.client.kiq(publish(1, n.to_string())).await.unwrap();
        assert_eq!(joined.id(), handle.id(), "after {n}");
    }
    let last = Timestamp::now();
    assert_eq!(handle.result().await.unwrap(), "19");
    let waited = handle.record().await.unwrap().started_at.unwrap().since(last);
    let pause = Duration::from_millis(200);
    assert!(waited >= pause && waited < pause * 2, "{waited:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_kicker_died_before_the_kick_is_free_after_a_second() {
    let bed = Bed::memory();
    let client = bed.client().await;
    let kv = client.backend().kv();
    let first = client.kiq(index(1, "")).await.unwrap();
    let queued = client.backend().broker().find(first.id()).await.unwrap().unwrap();
    client.backend().broker().remove(&[queued]).await;
    assert!(!kv.scan("unique.").await.unwrap().is_empty());
    let began = tokio::time::Instant::now();
    let second = client.kiq(index(1, "")).await.unwrap();
    assert!(!second.existing());
    // A virtual clock counts in milliseconds.
    assert!(began.elapsed() <= Duration::from_millis(1001), "{:?}", began.elapsed());
}
