//! Schedules: which ticks are fired, what becomes of the others, and who may change what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aioq::prelude::*;
use aioq::schedules::{Missed, Overlap, Put, Schedule, ScheduleFilter, ScheduleState, Source, When};
use aioq::tasks::{KickOptions, ScheduleOptions, TaskDef, TaskOptions};
use aioq::worker::WorkerOptions;
use aioq::{Client, ErrorKind, JobId, Timestamp};
use aioq_tests::{Bed, PATIENCE, Running, ended, on_each_backend, record_when, until};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const QUEUE: &str = "ticks";
const HOUR: Duration = Duration::from_secs(3600);

/// What the bodies saw.
#[derive(Clone)]
struct Log {
    runs: Arc<Mutex<Vec<Run>>>,
    gate: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Run {
    id: JobId,
    tick: Option<Timestamp>,
    at: Timestamp,
}

impl Log {
    fn new() -> Self {
        Self { runs: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    fn note(&self, ctx: &Context) {
        let is_own = |schedule: &str| ctx.id().as_str().starts_with(schedule);
        assert!(ctx.tick().is_none() || ctx.schedule().is_some_and(is_own));
        let run = Run { id: ctx.id().clone(), tick: ctx.tick(), at: Timestamp::now() };
        self.runs.lock().unwrap().push(run);
    }

    fn all(&self) -> Vec<Run> {
        self.runs.lock().unwrap().clone()
    }

    fn ticks(&self) -> Vec<Timestamp> {
        self.all().iter().map(|run| run.tick.unwrap()).collect()
    }

    fn count(&self) -> usize {
        self.runs.lock().unwrap().len()
    }
}

#[task(queue = "ticks", retry(max = 2, backoff = "10s"))]
async fn tick(how: &str, #[inject] ctx: &Context, #[inject] log: &Log) -> TaskResult<()> {
    log.note(ctx);
    match how {
        "hold" => log.gate.acquire().await.map_err(TaskError::from)?.forget(),
        "fail" => return Err(TaskError::new("broken")),
        _ => {}
    }
    Ok(())
}

#[task(queue = "ticks", unique(debounce = "5s"))]
async fn debounced(#[inject] log: &Log) {
    let _ = log;
}

#[derive(Deserialize)]
struct Nothing {}

/// A task with a schedule in its code, as a release of a program has it.
fn coded(name: &'static str, schedule: ScheduleOptions) -> TaskDef {
    let task = TaskDef::from_fn(name, |ctx: Context, _: Nothing| async move {
        ctx.state::<Log>()?.note(&ctx);
        Ok::<_, TaskError>(())
    });
    task.with_options(TaskOptions::new().queue(QUEUE).schedule(schedule))
}

fn app(bed: &Bed, log: &Log) -> App {
    bed.app_for(QUEUE).state(log.clone())
}

async fn started(bed: &Bed, log: &Log) -> Running {
    Running::start(app(bed, log)).await
}

fn is_second_after(ticks: &[Timestamp]) -> bool {
    ticks.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_secs(1))
}

on_each_backend! {
    async fn each_tick_runs_once_on_any_number_of_workers(bed: Bed) {
        let log = Log::new();
        let workers = [started(&bed, &log).await, started(&bed, &log).await, started(&bed, &log).await];
        let client = &workers[0].client;
        client.schedules().put("often", Schedule::every("1s"), tick("")).await.unwrap();
        until("four ticks have run", async || log.count() >= 4).await;
        let ticks = log.ticks();
        assert!(is_second_after(&ticks), "{ticks:?}");
        for run in log.all() {
            let due = run.tick.unwrap();
            assert!(run.at >= due, "not before its tick");
            let second = Timestamp::from_micros(due.as_micros() / 1_000_000 * 1_000_000);
            assert_eq!(run.id, JobId::from(format!("often@{second}")));
        }
        let view = client.schedules().get("often").await.unwrap();
        assert!(view.counts.fired >= 4 && view.counts.missed + view.counts.skipped == 0, "{view:?}");
        assert_eq!(view.recent[0].job, log.all()[0].id);
        for worker in workers {
            worker.stop().await;
        }
    }

    async fn a_schedule_is_put_changed_paused_and_removed(bed: Bed) {
        let client = bed.client().await;
        let schedules = client.schedules();
        let yearly = || Schedule::cron("0 6 1 1 *").tz("Europe/Paris");
        assert_eq!(schedules.put("b.1", yearly(), tick("")).await.unwrap(), Put::Created);
        assert_eq!(schedules.put("b.1", yearly(), tick("")).await.unwrap(), Put::Same);
        assert_eq!(schedules.put("b.1", yearly(), tick("other")).await.unwrap(), Put::Changed);
        assert_eq!(schedules.put("b.1", yearly().missed(Missed::All), tick("other")).await.unwrap(), Put::Changed);
        let args = BTreeMap::from([("x", 1)]);
        let by_name = schedules.put_by_name("a", Schedule::every("90s"), "of.others", &args, KickOptions::new());
        assert_eq!(by_name.await.unwrap(), Put::Created);

        let views = schedules.list(ScheduleFilter::new()).await.unwrap();
        assert_eq!(views.iter().map(|view| &*view.id).collect::<Vec<_>>(), ["a", "b.1"]);
        assert_eq!(views[0].when, When::Every(Duration::from_secs(90)));
        assert_eq!((&*views[0].task, &*views[1].task), ("of.others", "tick"));
        assert_eq!((views[1].missed, views[1].state, views[1].source), (Missed::All, ScheduleState::Active, Source::Api));
        assert_eq!(schedules.list(ScheduleFilter::new().task("tick")).await.unwrap().len(), 1);
        let next = views[1].next(2);
        assert!(next[0].to_string().ends_with("-01-01T05:00:00Z"), "{next:?}");

        assert!(schedules.pause("b.1").await.unwrap() && !schedules.pause("b.1").await.unwrap());
        assert_eq!(schedules.get("b.1").await.unwrap().state, ScheduleState::Paused);
        assert_eq!(schedules.put("b.1", yearly(), tick("")).await.unwrap(), Put::Changed);
        assert_eq!(schedules.get("b.1").await.unwrap().state, ScheduleState::Paused, "it stays paused");
        assert!(schedules.resume("b.1").await.unwrap() && !schedules.resume("b.1").await.unwrap());
        schedules.remove("b.1").await.unwrap();
        for error in [
            schedules.remove("b.1").await.unwrap_err(),
            schedules.pause("b.1").await.unwrap_err(),
            schedules.run("b.1").await.unwrap_err(),
            schedules.get("b.1").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }

    async fn what_cannot_be_scheduled_is_refused(bed: Bed) {
        let client = bed.client().await;
        let schedules = client.schedules();
        let minutely = || Schedule::cron("* * * * *");
        let long = "x".repeat(101);
        if let Bed::Nats(_) = &bed {
            // A kick has room for it. A schedule keeps its ticks beside it.
            let largest = "x".repeat(client.max_payload_bytes() - 100);
            client.kiq(tick(&*largest)).await.unwrap();
            let refused = schedules.put("s", minutely(), tick(&*largest)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TooLarge, "{refused}");
        }
        let refusals = [
            (schedules.put("s", Schedule::cron("0 0 30 2 *"), tick("")).await, "never comes"),
            (schedules.put("s", minutely().tz("Europe/Berln"), tick("")).await, "Europe/Berlin"),
            (schedules.put("s", Schedule::every("500ms"), tick("")).await, "at most once a second"),
            (schedules.put("s", Schedule::every("soon"), tick("")).await, "invalid duration"),
            (schedules.put("s", Schedule::every("1m").tz("UTC"), tick("")).await, "of a cron expression"),
            (schedules.put("s", Schedule::at("2020-01-01T00:00:00Z"), tick("")).await, "has passed"),
            (schedules.put("s", Schedule::at("tomorrow"), tick("")).await, "invalid timestamp"),
            (schedules.put("s", minutely(), tick("").id("mine")).await, "an id of its own"),
            (schedules.put("s", minutely(), tick("").delay("5s")).await, "a delay"),
            (schedules.put("s", minutely(), tick("").after_ids(["a"])).await, "parents"),
            (schedules.put("s", minutely(), debounced()).await, "debouncing"),
            (schedules.put("s", minutely(), tick("x".repeat(2_000_000))).await, "bytes"),
            (schedules.put(&long, minutely(), tick("")).await, "1 to 100 bytes"),
            (schedules.put("", minutely(), tick("")).await, "1 to 100 bytes"),
        ];
        for (refused, words) in refusals {
            let error = refused.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::TooLarge), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(schedules.list(ScheduleFilter::new()).await.unwrap().is_empty());
    }

    async fn a_job_can_be_run_besides_the_ticks(bed: Bed) {
        let log = Log::new();
        let worker = started(&bed, &log).await;
        let schedules = worker.client.schedules();
        schedules.put("yearly", Schedule::cron("@yearly"), tick("")).await.unwrap();
        schedules.pause("yearly").await.unwrap();
        let handle = schedules.run("yearly").await.unwrap();
        assert_eq!(ended(&handle).await.status, Status::Completed);
        assert_eq!(log.all()[0].tick, None);
        worker.stop().await;
    }

    async fn ids_that_look_alike_are_different_schedules(bed: Bed) {
        let client = bed.client().await;
        let ids = ["a", "A", "a.b", "a=2Eb", "a b", "ä", "*", ">", "a.", ".a", "..", "a/b"];
        for id in ids {
            let put = client.schedules().put(id, Schedule::every("1h"), tick(id)).await.unwrap();
            assert_eq!(put, Put::Created, "{id}");
        }
        let mut found: Vec<String> =
            client.schedules().list(ScheduleFilter::new()).await.unwrap().into_iter().map(|view| view.id).collect();
        let mut ids = ids.map(str::to_owned).to_vec();
        found.sort();
        ids.sort();
        assert_eq!(found, ids);
    }

    async fn the_schedules_of_the_code_are_written_when_a_worker_starts(bed: Bed) {
        let log = Log::new();
        let hourly = coded("coded", ScheduleOptions::cron("0 * * * *", "UTC"));
        let worker = Running::start(app(&bed, &log).task(hourly)).await;
        let schedules = worker.client.schedules();
        until("it is written", async || schedules.get("coded").await.is_ok()).await;
        let view = schedules.get("coded").await.unwrap();
        assert_eq!((view.source, view.state), (Source::Code, ScheduleState::Active));
        let refused = schedules.remove("coded").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("pause it instead"), "{refused}");
        let put = schedules.put("coded", Schedule::every("1h"), tick("")).await.unwrap_err();
        assert_eq!(put.kind(), ErrorKind::Conflict);
        assert!(schedules.pause("coded").await.unwrap());
        worker.stop().await;

        // A new release: the pause survives. The worker of another program has no part in it.
        let every = coded("coded", ScheduleOptions::every_ms(60_000).missed(Missed::Once).overlap(Overlap::Skip));
        let newer = Running::start(app(&bed, &log).task(every)).await;
        let other = started(&bed, &log).await;
        let schedules = newer.client.schedules();
        until("it is changed", async || schedules.get("coded").await.unwrap().missed == Missed::Once).await;
        let view = schedules.get("coded").await.unwrap();
        assert_eq!((view.when, view.state), (When::Every(Duration::from_secs(60)), ScheduleState::Paused));
        newer.stop().await;
        let schedules = other.client.schedules();
        until("nobody has it", async || schedules.get("coded").await.unwrap().state == ScheduleState::Orphaned).await;
        schedules.remove("coded").await.unwrap();
        other.stop().await;
    }

    async fn a_worker_without_a_scheduler_fires_nothing(bed: Bed) {
        let log = Log::new();
        let options = WorkerOptions::new().queues([QUEUE]).schedules(false);
        let hourly = coded("coded", ScheduleOptions::cron("0 * * * *", "UTC"));
        let quiet = Running::start(app(&bed, &log).task(hourly).worker_options(options)).await;
        quiet.client.schedules().put("often", Schedule::every("1s"), tick("")).await.unwrap();
        let handle = quiet.client.kiq(tick("").delay("2500ms")).await.unwrap();
        ended(&handle).await;
        assert_eq!(log.count(), 1);
        assert_eq!(quiet.client.schedules().list(ScheduleFilter::new()).await.unwrap().len(), 1);
        quiet.stop().await;
    }
}

/// Puts a schedule by the minute, and waits until its first tick has run.
async fn minutely(client: &Client, log: &Log, schedule: Schedule) {
    client.schedules().put("minutely", schedule, tick("")).await.unwrap();
    sleep(Duration::from_secs(61)).await;
    assert_eq!(log.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_no_worker_was_there_for_is_skipped_run_once_or_run_at_all() {
    for (missed, runs) in [(Missed::Skip, 0..=1), (Missed::Once, 1..=1), (Missed::All, 360..=361)] {
        let (bed, log) = (Bed::memory(), Log::new());
        let worker = started(&bed, &log).await;
        minutely(&worker.client, &log, Schedule::every("1m").missed(missed)).await;
        worker.stop().await;
        let before = log.count();
        sleep(6 * HOUR + Duration::from_secs(20)).await;
        let worker = started(&bed, &log).await;
        sleep(Duration::from_secs(5)).await;
        let late = log.count() - before;
        assert!(runs.contains(&late), "{missed:?}: {late}");
        let ticks = log.ticks();
        assert!(ticks.is_sorted(), "the oldest first");
        // The beat goes on.
        sleep(Duration::from_secs(180)).await;
        assert_eq!(log.count() - before - late, 3, "{missed:?}");
        let counts = worker.client.schedules().get("minutely").await.unwrap().counts;
        assert_eq!(counts.fired + counts.missed, 1 + 360 + 3, "{missed:?}: {counts:?}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_neither_move_the_beat_nor_lose_a_tick() {
    let (bed, log) = (Bed::memory(), Log::new());
    let mut worker = started(&bed, &log).await;
    minutely(&worker.client, &log, Schedule::every("1m")).await;
    for _ in 0..30 {
        worker.stop().await;
        sleep(Duration::from_secs(7)).await;
        worker = started(&bed, &log).await;
        sleep(Duration::from_secs(13)).await;
    }
    let ticks = log.ticks();
    assert!(ticks.windows(2).all(|pair| pair[1].since(pair[0]) == Duration::from_secs(60)), "{ticks:?}");
    assert!(ticks.len() >= 10, "{ticks:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ticks_of_a_pause_are_neither_run_nor_missed() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let schedules = worker.client.schedules();
    minutely(&worker.client, &log, Schedule::every("1m").missed(Missed::All)).await;
    schedules.pause("minutely").await.unwrap();
    sleep(3 * HOUR).await;
    assert_eq!(log.count(), 1);
    schedules.resume("minutely").await.unwrap();
    sleep(Duration::from_secs(61)).await;
    assert_eq!(log.count(), 2);
    assert_eq!(schedules.get("minutely").await.unwrap().counts.missed, 0);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_schedule_does_not_run_the_tick_before_it() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let schedules = worker.client.schedules();
    schedules.put("daily", Schedule::cron("0 3 * * *").missed(Missed::All), tick("")).await.unwrap();
    sleep(24 * HOUR).await;
    assert_eq!(log.count(), 1);
    // Changed, and removed and put again: no tick comes twice, and none of before.
    schedules.put("daily", Schedule::cron("0 3 * * *").missed(Missed::Once), tick("")).await.unwrap();
    schedules.remove("daily").await.unwrap();
    schedules.put("daily", Schedule::cron("0 3 * * *").missed(Missed::All), tick("")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.count(), 1);
    sleep(24 * HOUR).await;
    assert_eq!(log.count(), 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_skipped_while_the_job_before_has_not_ended() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let schedules = worker.client.schedules();
    let every = || Schedule::every("2s").overlap(Overlap::Skip);
    schedules.put("holds", every(), tick("hold")).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(log.count(), 1);
    assert_eq!(schedules.get("holds").await.unwrap().counts.skipped, 4);
    log.gate.add_permits(1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(log.count(), 2, "the next tick runs");
    // A job that was called off holds up nothing.
    assert!(worker.client.jobs().abort(&log.all()[1].id, PATIENCE).await.unwrap());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(log.count(), 3);
    schedules.remove("holds").await.unwrap();
    log.gate.add_permits(10);
    sleep(Duration::from_secs(10)).await;

    // A job that waits for a retry has not ended: three runs, 10 s apart.
    let before = log.count();
    schedules.put("fails", every(), tick("fail")).await.unwrap();
    sleep(Duration::from_secs(21)).await;
    let ids: Vec<JobId> = log.all().into_iter().skip(before).map(|run| run.id).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    schedules.remove("fails").await.unwrap();
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_queue_holds_one_job_of_a_schedule_that_does_not_overlap() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    worker.client.queues().pause(QUEUE).await.unwrap();
    let every = Schedule::every("2s").overlap(Overlap::Skip);
    worker.client.schedules().put("waits", every, tick("")).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.client.queues().list().await.unwrap().iter().map(|queue| queue.depth).sum::<u64>(), 1);
    worker.stop().await;
}

/// As a worker leaves it that was killed while it ran a job which is acked on receive.
#[tokio::test(start_paused = true)]
async fn a_job_that_a_dead_worker_left_running_holds_up_no_tick() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let client = &worker.client;
    client
        .schedules()
        .put("holds", Schedule::every("2s").overlap(Overlap::Skip), tick("hold"))
        .await
        .unwrap();
    sleep(Duration::from_secs(3)).await;
    let id = log.all()[0].id.clone();
    let mut record = record_when(client, &id, |record| record.status == Status::Running).await;
    record.worker_id = Some("gone".into());
    client.backend().jobs().unwrap().put(Arc::new(record), aioq::store::Expect::Any, None).await.unwrap();
    let taken = aioq_tests::until("its message is away", async || {
        log.gate.add_permits(1);
        client.backend().broker().find(&id).await.unwrap().is_none()
    });
    taken.await;
    sleep(Duration::from_secs(3)).await;
    assert!(log.count() >= 2);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_for_one_time_runs_once_however_late() {
    let (bed, log) = (Bed::memory(), Log::new());
    let client = bed.client().await;
    let schedules = client.schedules();
    let time = Timestamp::now() + 5 * HOUR;
    assert_eq!(schedules.put("once", Schedule::at(time), tick("")).await.unwrap(), Put::Created);
    assert_eq!(schedules.get("once").await.unwrap().next(3), [time]);
    sleep(20 * HOUR).await;
    let worker = started(&bed, &log).await;
    sleep(2 * HOUR).await;
    assert_eq!(log.ticks(), [time]);
    let view = schedules.get("once").await.unwrap();
    assert_eq!((view.state, view.next(1)), (ScheduleState::Ended, vec![]));
    // A program puts it each time it starts.
    assert_eq!(schedules.put("once", Schedule::at(time), tick("")).await.unwrap(), Put::Same);
    worker.stop().await;
    sleep(8 * 24 * HOUR).await;
    assert_eq!(schedules.get("once").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_passes_in_a_pause_ends_the_schedule() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let schedules = worker.client.schedules();
    let at = |span: Duration| Schedule::at(Timestamp::now() + span);
    schedules.put("once", at(HOUR), tick("")).await.unwrap();
    schedules.pause("once").await.unwrap();
    sleep(2 * HOUR).await;
    assert!(schedules.resume("once").await.unwrap());
    assert_eq!(schedules.get("once").await.unwrap().state, ScheduleState::Ended);
    // In the second of the change its job might have the id of one before.
    let soon = schedules.put("once", at(Duration::from_micros(1)), tick("")).await;
    assert!(soon.unwrap_err().to_string().contains("has passed"));
    schedules.put("once", at(Duration::from_secs(2)), tick("")).await.unwrap();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(log.count(), 1);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ttl_counts_from_the_tick() {
    let (bed, log) = (Bed::memory(), Log::new());
    let worker = started(&bed, &log).await;
    let client = &worker.client;
    client.queues().pause(QUEUE).await.unwrap();
    client.schedules().put("brief", Schedule::every("10m"), tick("").ttl("1m")).await.unwrap();
    sleep(Duration::from_secs(11 * 60 + 1)).await;
    client.queues().resume(QUEUE).await.unwrap();
    let job = client.schedules().get("brief").await.unwrap().recent[0].job.clone();
    record_when(client, &job, |record| record.status == Status::Expired).await;
    sleep(Duration::from_secs(9 * 60)).await;
    assert_eq!(log.count(), 1, "the next one is in time");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ticks_of_the_past_can_be_run_once_more() {
    let (bed, log) = (Bed::memory(), Log::new());
    let client = bed.client().await;
    let schedules = client.schedules();
    schedules.put("hourly", Schedule::every("1h"), tick("")).await.unwrap();
    let made = schedules.get("hourly").await.unwrap().settled_until;
    sleep(10 * HOUR + HOUR / 2 + Duration::from_secs(60)).await;
    let worker = started(&bed, &log).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(schedules.get("hourly").await.unwrap().counts.missed, 10);
    let handles = schedules.backfill("hourly", made..made + 6 * HOUR).await.unwrap();
    assert_eq!(handles.len(), 5);
    for handle in &handles {
        assert_eq!(ended(handle).await.status, Status::Completed);
    }
    let ticks: Vec<Timestamp> = (1..6).map(|hour| made + hour * HOUR).collect();
    let mut run = log.ticks();
    run.sort_unstable();
    assert_eq!(run, ticks);
    let again = schedules.backfill("hourly", made..made + 6 * HOUR).await.unwrap();
    assert!(again.iter().all(TaskHandle::existing));
    let error = schedules.backfill("hourly", made..made + 2_000 * HOUR).await.unwrap();
    assert_eq!(error.len(), 10, "no tick to come");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_code_rests_while_no_worker_has_that_code() {
    let (bed, log) = (Bed::memory(), Log::new());
    let every = || coded("coded", ScheduleOptions::every_ms(60_000).missed(Missed::All));
    let with_code = async || Running::start(app(&bed, &log).task(every())).await;
    let older = with_code().await;
    // The worker of a newer release, which has it no more, and takes other jobs.
    let newer = Running::start(bed.app_for("other").state(log.clone())).await;
    sleep(Duration::from_secs(121)).await;
    assert_eq!(log.count(), 2, "it ticks while a worker has it");
    older.stop().await;
    sleep(3 * HOUR).await;
    assert_eq!(log.count(), 2);
    // Rolled back: it goes on from now.
    let rolled_back = with_code().await;
    sleep(Duration::from_secs(121)).await;
    assert_eq!(log.count(), 4);
    rolled_back.stop().await;
    newer.stop().await;
    sleep(8 * 24 * HOUR).await;
    let gone = bed.client().await.schedules().get("coded").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "forgotten after a week");
}

#[tokio::test(start_paused = true)]
async fn a_schedule_of_the_code_is_kept_while_a_worker_runs() {
    let (bed, log) = (Bed::memory(), Log::new());
    let yearly = coded("coded", ScheduleOptions::cron("0 0 1 1 *", "UTC"));
    let worker = Running::start(app(&bed, &log).task(yearly)).await;
    for _ in 0..20 {
        // Without all the heartbeats in between.
        tokio::time::advance(12 * HOUR).await;
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(worker.client.schedules().get("coded").await.unwrap().state, ScheduleState::Active);
    worker.stop().await;
}
