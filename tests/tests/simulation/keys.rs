//! Worlds of unique keys: kickers of a few keys that freeze, die and have wrong clocks, and workers
//! that do, too.
//!
//! - [`tasks`]: a task of each kind of key.
//! - [`kickers`]: clients that kick them.
//! - [`unique`]: what must be true of unique jobs.
//! - [`bursts`]: what must be true of debounced jobs.
//! - [`found`]: what seeds have brought to light, each by itself.

mod bursts;
mod found;
mod kickers;
mod tasks;
mod unique;

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use aioq::JobId;
use aioq_tests::faults::{Broken, Fact};
use tokio::time::sleep;

use self::kickers::{Kicks, start_kicker};
use self::tasks::Key;
use crate::crew::{Crew, MOST_SLOTS, Outcome, in_virtual_time};

/// Longer than all windows and pauses.
const WINDOW_PASSES: Duration = Duration::from_secs(600);

/// Runs a seed of the worlds of unique jobs.
pub(crate) fn simulate(seed: u64, broken: Option<Broken>) -> Outcome {
    in_virtual_time(seed, run(seed, broken, Key::UNIQUE))
}

/// Runs a seed of the worlds of debounced jobs.
pub(crate) fn simulate_bursts(seed: u64, broken: Option<Broken>) -> Outcome {
    in_virtual_time(seed, run(seed, broken, Key::DEBOUNCED))
}

async fn run(seed: u64, broken: Option<Broken>, keys: Range<u32>) -> Outcome {
    let random = fastrand::Rng::with_seed(seed.wrapping_mul(37) + 5);
    let draw_clocks = |random: &mut fastrand::Rng| *random.choice(&[1, 4_000, 120_000]).unwrap();
    let mut crew = Crew::new(seed, broken, random, draw_clocks).await;
    let kicks = Kicks::default();
    // Where all want one key, it changes hands most often.
    let wanted = match crew.random.bool() {
        true => keys.clone(),
        false => {
            let key = crew.random.u32(keys.clone());
            key..key + 1
        }
    };
    let is_debounced = keys == Key::DEBOUNCED;
    // Nothing but the clocks is wrong in some worlds: then the jobs must start on time.
    let is_calm = is_debounced && crew.random.u32(..3) == 0;
    if is_calm {
        crew.faults.end();
        crew.start_worker(MOST_SLOTS).await;
    }
    let mut kickers = Vec::new();
    for _ in 0..crew.random.usize(2..=4) {
        kickers.push(start_kicker(&mut crew, &kicks, wanted.clone()).await);
    }
    while kickers.iter().any(|kicker| !kicker.is_finished()) {
        sleep(Duration::from_millis(crew.random.u64(..2_000))).await;
        if is_calm {
            continue;
        }
        if crew.random.u32(..6) == 0 {
            let number = crew.random.usize(..kickers.len());
            crew.faults.journal().note(0, Fact::Note("a kicker dies".to_owned()));
            kickers.swap_remove(number).abort();
        }
        crew.disturb().await;
    }
    crew.come_to_rest(&[]).await;
    let kicks = kicks.all();
    let (runs, journal) = (crew.stage.runs(), crew.faults.journal());
    let mut wrong = match is_debounced {
        true => bursts::check(&kicks, &runs, journal, crew.clocks_apart, is_calm),
        false => unique::check(&kicks, &runs, journal, crew.clocks_apart),
    };
    let ids: BTreeSet<&JobId> = kicks.iter().filter_map(|kick| Some(&kick.answer.as_ref()?.id)).collect();
    for id in ids {
        match crew.client.jobs().get(id).await {
            Ok(job) if job.status.is_terminal() => {}
            job => {
                wrong.push(format!("a kick was answered with {id}, which is {:?}", job.map(|job| job.status)))
            }
        }
    }
    sleep(WINDOW_PASSES).await;
    for key in keys.map(Key) {
        let handle = key.kick(&crew.client, kicks.len(), 0, 0).await.unwrap();
        if handle.existing() {
            wrong.push(format!("key {key} is held at rest, by {}", handle.id()));
        }
    }
    crew.outcome(wrong)
}
