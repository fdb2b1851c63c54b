//! From a queue in memory through the middlewares to the body, and its end: per job.

use aioq::bench::{TEXT, Tally};
use aioq::middleware::{Middleware, Next, Outcome};
use aioq::store::RecordLevel;
use aioq::{App, Context, Memory, Worker, async_trait, task};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use tokio::runtime::Runtime;

/// Jobs of one measurement: starting and stopping to listen is shared by them.
const JOBS: usize = 10_000;

/// Does nothing.
#[task(name = "micro.noop")]
pub(crate) async fn noop(number: u64, text: &str) {
    black_box((number, text));
}

/// Does nothing but count.
#[task(name = "micro.counted")]
async fn counted(number: u64, text: &str, #[inject] tally: &Tally) {
    black_box((number, text));
    tally.count();
}

/// Goes on.
struct Layer;

#[async_trait]
impl Middleware for Layer {
    async fn run(&self, ctx: Context, next: Next<'_>) -> Outcome {
        next.run(ctx).await
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A call, run here.
#[divan::bench]
fn direct_call(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    bencher.bench_local(|| runtime.block_on(async { noop(black_box(7), TEXT).await }));
}

#[divan::bench]
fn direct_call_raw(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    bencher.bench_local(|| runtime.block_on(async { noop::call(black_box(7), TEXT).await }));
}

/// Taken, opened, run through that many middlewares of the user, acked; nothing is written down.
#[divan::bench(args = [0, 3], sample_count = 20)]
fn dispatch_with_layers(bencher: Bencher<'_, '_>, layers: usize) {
    drain(bencher, layers, RecordLevel::None);
}

/// The same with its record: what a settlement adds.
#[divan::bench(sample_count = 20)]
fn dispatch_with_record(bencher: Bencher<'_, '_>) {
    drain(bencher, 0, RecordLevel::Full);
}

/// A task of the runtime for each body.
#[divan::bench(sample_count = 20)]
fn dispatch_raw(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    bencher.counter(ItemsCount::new(JOBS)).bench_local(|| {
        runtime.block_on(async {
            let spawned = (0..JOBS as u64).map(|number| tokio::spawn(noop::call(number, TEXT)));
            for task in spawned.collect::<Vec<_>>() {
                task.await.expect("it does not panic");
            }
        });
    });
}

fn drain(bencher: Bencher<'_, '_>, layers: usize, records: RecordLevel) {
    let runtime = runtime();
    bencher
        .counter(ItemsCount::new(JOBS))
        .with_inputs(|| runtime.block_on(full_queue(layers, records)))
        .bench_local_values(|(worker, tally)| runtime.block_on(worker.run(tally.full())));
}

/// A worker whose jobs wait already, and what tells when all have run.
async fn full_queue(layers: usize, records: RecordLevel) -> (Worker, Tally) {
    let tally = Tally::of(JOBS);
    let app = App::new(Memory::new()).records(records).state(tally.clone());
    let app = (0..layers).fold(app, |app, _| app.middleware(Layer));
    let worker = app.worker().await.expect("memory starts");
    for kicked in worker.client().kiq_all((0..JOBS as u64).map(|number| counted(number, TEXT))).await {
        kicked.expect("memory has room");
    }
    (worker, tally)
}
