//! A server that has no room, or has lost its streams.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aioq::broker::Level;
use aioq::message::{Arguments, Codec};
use aioq::prelude::*;
use aioq::store::{Expect, JobRecord, Status};
use aioq::worker::WorkerOptions;
use aioq::{Backend, Client, ErrorKind, Message, Timestamp};
use aioq_nats::Nats;
use aioq_tests::{NatsServer, Running, capture_logs, logged, statuses, unique_prefix, until};
use async_nats::jetstream::{self, stream::Config};
use tokio::sync::Semaphore;

/// Jobs at a time.
const CONCURRENCY: usize = 4;

/// Jobs that ran, and a gate before their ends.
#[derive(Clone)]
struct Runs {
    runs: Arc<Mutex<Vec<u32>>>,
    waiting: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    lend: Arc<Semaphore>,
}

#[task(queue = "rooms")]
async fn pass(number: u32, #[inject] runs: &Runs) -> u32 {
    runs.runs.lock().unwrap().push(number);
    runs.waiting.fetch_add(1, Ordering::SeqCst);
    runs.gate.acquire().await.unwrap().forget();
    number
}

/// Waits for another job, which lends its slot.
#[task(queue = "rooms")]
async fn lends_its_slot(#[inject] runs: &Runs, #[inject] client: Client) -> TaskResult<()> {
    runs.waiting.fetch_add(1, Ordering::SeqCst);
    runs.lend.acquire().await.unwrap().forget();
    client.handle::<u32>("later").await?.wait().await?;
    Ok(())
}

/// A server, a client and a worker on it.
struct Scene {
    server: NatsServer,
    prefix: String,
    client: Client,
    runs: Runs,
    worker: Running,
}

impl Scene {
    async fn on(server: NatsServer) -> Self {
        let (prefix, closed) = (unique_prefix(), || Arc::new(Semaphore::new(0)));
        let runs = Runs { runs: Arc::default(), waiting: Arc::default(), gate: closed(), lend: closed() };
        let nats = Nats::new(server.url()).prefix(&prefix);
        let client = Client::connect(Backend::from(nats.clone())).await.unwrap();
        let options = WorkerOptions::new().queues(["rooms"]).concurrency(CONCURRENCY);
        let app = App::new(nats).state(runs.clone()).worker_options(options);
        let worker = Running::start(app).await;
        Self { server, prefix, client, runs, worker }
    }

    fn stream(&self, kind: &str) -> String {
        format!("{}_{kind}", self.prefix.to_ascii_uppercase())
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.server.url()).await.unwrap())
    }

    fn ran(&self) -> Vec<u32> {
        let mut ran = self.runs.runs.lock().unwrap().clone();
        ran.sort_unstable();
        ran
    }

    async fn end(self) {
        self.worker.stop().await;
        self.client.shutdown().await.unwrap();
    }
}

/// Stores until the server takes nothing more.
async fn fill(jetstream: &jetstream::Context) {
    let config = Config { name: "JUNK".into(), subjects: vec!["junk".into()], ..Config::default() };
    jetstream.create_stream(config).await.unwrap();
    while jetstream.publish("junk", vec![0; 100_000].into()).await.unwrap().await.is_ok() {}
}

/// A server with little storage. The file of its settings is to be removed.
async fn small_server() -> (NatsServer, PathBuf) {
    let settings = std::env::temp_dir().join(unique_prefix());
    std::fs::write(&settings, "jetstream { max_file_store: 4MB }").unwrap();
    (NatsServer::start_with(&["-js", "-c", settings.to_str().unwrap()]).await.unwrap(), settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_slot_gets_no_job_while_the_result_of_another_cannot_be_saved() {
    capture_logs();
    let (server, settings) = small_server().await;
    let scene = Scene::on(server).await;
    let client = &scene.client;
    let later = client.kiq(pass(99).delay("1h").id("later")).await.unwrap();
    client.kiq(pass(0)).await.unwrap();
    for _ in 1..CONCURRENCY {
        client.kiq(lends_its_slot()).await.unwrap();
    }
    until("bodies run", async || scene.runs.waiting.load(Ordering::SeqCst) == CONCURRENCY).await;
    for number in 1..CONCURRENCY as u32 {
        client.kiq(pass(number)).await.unwrap();
    }
    let jetstream = scene.jetstream().await;
    fill(&jetstream).await;
    let refusals = || logged("no job is started until there is room").len();
    let before = refusals();
    scene.runs.gate.add_permits(10_000);
    until("its result cannot be saved", async || refusals() > before).await;
    scene.runs.lend.add_permits(CONCURRENCY);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.ran(), [0], "three slots are lent, and no result could be saved");

    jetstream.delete_stream("JUNK").await.unwrap();
    until("all jobs have run", async || scene.ran().len() == CONCURRENCY).await;
    assert!(later.cancel().await.unwrap());
    scene.end().await;
    std::fs::remove_file(settings).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_storage_is_full_kicks_say_so_no_job_starts_and_none_runs_twice_or_is_lost() {
    const JOBS: u32 = 40;
    let (server, settings) = small_server().await;
    let scene = Scene::on(server).await;
    let (client, jetstream) = (&scene.client, scene.jetstream().await);
    for number in 0..JOBS {
        client.kiq(pass(number)).await.unwrap();
    }
    until("bodies run", async || scene.runs.waiting.load(Ordering::SeqCst) == CONCURRENCY).await;
    let due = Timestamp::now() + Duration::from_secs(2);
    client.kiq(pass(JOBS).at(due)).await.unwrap();
    fill(&jetstream).await;

    let (begun, refused) = (Instant::now(), client.kiq(pass(JOBS + 1)).await.unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    assert!(refused.to_string().contains("the storage of the server is full"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let found = client.backend().broker().examine().await.unwrap();
    assert!(found.iter().any(|found| found.about == "storage" && found.level == Level::Warning), "{found:?}");

    scene.runs.gate.add_permits(10_000);
    until("the delayed job is overdue", async || Timestamp::now().since(due) > Duration::from_secs(1)).await;
    assert_eq!(scene.ran().len(), CONCURRENCY, "no body starts that could not be saved");

    jetstream.delete_stream("JUNK").await.unwrap();
    until("all jobs have ended", async || {
        let counts = client.backend().jobs().unwrap().counts(&["rooms".to_owned()]).await.unwrap();
        let of = |status| counts.iter().find(|count| count.status == status).map_or(0, |count| count.count);
        of(Status::Completed) == u64::from(JOBS) + 1
    })
    .await;
    assert_eq!(scene.ran(), (0..=JOBS).collect::<Vec<_>>(), "each once");
    scene.end().await;
    std::fs::remove_file(settings).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_vanish_are_declared_again_and_work_goes_on() {
    capture_logs();
    let mut scene = Scene::on(NatsServer::start().await.unwrap()).await;
    scene.runs.gate.add_permits(10_000);
    let jetstream = scene.jetstream().await;
    let works = async |scene: &Scene, number, what: &str| {
        let begun = Instant::now();
        let job = scene.client.kiq(pass(number)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let result = tokio::time::timeout(Duration::from_secs(10), job.result()).await;
        assert_eq!(result.unwrap_or_else(|_| panic!("{what}: no result")).unwrap(), number);
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
    };
    works(&scene, 0, "all is there").await;
    for (number, kind) in (1..).zip(["KV", "RECORDS", "JOBS"]) {
        jetstream.delete_stream(scene.stream(kind)).await.unwrap();
        works(&scene, number, kind).await;
        until("a warning names the stream", async || {
            logged("what it held is lost").iter().any(|line| line.contains(&scene.stream(kind)))
        })
        .await;
    }
    until("the worker is known again", async || {
        scene.client.workers().list().await.is_ok_and(|workers| workers.len() == 1)
    })
    .await;
    assert_eq!(scene.client.backend().broker().queues().await.unwrap(), ["rooms"]);
    scene.server.restart_empty().await.unwrap();
    works(&scene, 4, "the store is empty").await;
    scene.end().await;
}

#[tokio::test]
async fn a_record_is_written_over_at_once_and_the_older_one_does_not_stay() {
    let (files, prefix) = (std::env::temp_dir().join(unique_prefix()), unique_prefix());
    let user = |name: &str, denied: &str| {
        format!("{{ user: {name}, password: p, permissions: {{ publish: {{ deny: [{denied:?}] }} }} }}")
    };
    let users = [user("purges", "none"), user("deletes", "$JS.API.STREAM.PURGE.>")];
    let users = [users.join(","), user("neither", "$JS.API.STREAM.*.>")].join(",");
    let users =
        users.replace("$JS.API.STREAM.*.>\"", "$JS.API.STREAM.PURGE.>\", \"$JS.API.STREAM.MSG.DELETE.>\"");
    std::fs::write(&files, format!("no_auth_user: purges, authorization {{ users: [{users}] }}")).unwrap();
    let server = NatsServer::start_with(&["-js", "-c", files.to_str().unwrap()]).await.unwrap();
    let url = |user: &str| server.url().replace("//", &format!("//{user}:p@"));
    for user in ["purges", "deletes", "neither"] {
        let backend = Backend::from(Nats::new(url(user)).prefix(&prefix));
        let client = Client::connect(backend.clone()).await.unwrap();
        let jobs = backend.jobs().unwrap();
        let message =
            Message::new(user.into(), "task", Arguments::from_json(Codec::MessagePack, "{}").unwrap());
        let (begun, mut expect) = (Instant::now(), Expect::Absent);
        for status in [Status::Running, Status::Retrying, Status::Running, Status::Completed] {
            let record = Arc::new(JobRecord::of(&message, status));
            expect = Expect::Revision(jobs.put(record, expect, None).await.unwrap());
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{user}: {:?}", begun.elapsed());
        assert_eq!(jobs.get(&user.into()).await.unwrap().unwrap().record.status, Status::Completed);
        client.shutdown().await.unwrap();
    }
    let left = statuses(&server.url(), &prefix).await;
    assert_eq!(left["purges"], ["completed"]);
    assert_eq!(left["deletes"], ["completed"]);
    std::fs::remove_file(files).unwrap();
}
