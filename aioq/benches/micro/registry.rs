//! Finding a task among a thousand.

use std::collections::HashMap;
use std::sync::Arc;

use aioq::tasks::{Registry, TaskDef};
use aioq::{Context, TaskError};
use divan::{Bencher, black_box};
use serde::Deserialize;

#[derive(Deserialize)]
struct Nothing {}

fn name(number: usize) -> String {
    format!("area_{}.task_{number}", number % 17)
}

fn task(number: usize) -> TaskDef {
    TaskDef::from_fn(name(number), |_: Context, Nothing {}| async { Ok::<_, TaskError>(()) })
}

#[divan::bench(args = [1, 1000])]
fn lookup(bencher: Bencher<'_, '_>, tasks: usize) {
    let registry = (0..tasks).map(task).try_fold(Registry::default(), Registry::with).expect("names differ");
    let wanted = name(tasks / 2);
    bencher.bench_local(|| registry.find(black_box(&wanted)));
}

#[divan::bench(args = [1, 1000])]
fn lookup_raw(bencher: Bencher<'_, '_>, tasks: usize) {
    let registry: HashMap<String, Arc<TaskDef>> = (0..tasks).map(|n| (name(n), Arc::new(task(n)))).collect();
    let wanted = name(tasks / 2);
    bencher.bench_local(|| registry.get(black_box(&wanted)).map(Arc::clone));
}
