//! The search: every choice at every step, by running again from the start; or random ones.

use std::collections::HashSet;
use std::fmt::Debug;

/// The actors of one run, and what must hold.
pub(crate) trait World: Sized {
    type Setting: Copy + Debug;
    /// A choice of the search.
    type Choice: Clone;

    async fn new(setting: Self::Setting) -> Self;
    /// What may happen next. Nothing, if all actors are at rest.
    async fn choices(&self) -> Vec<Self::Choice>;
    /// The same choice in this world, which has come to the same state as another one before.
    fn same(&self, choice: &Self::Choice) -> Self::Choice;
    /// Does what was chosen. What is wrong now, if anything.
    async fn step(&mut self, choice: Self::Choice) -> Option<String>;
    /// Hash of all that decides what may happen from now on.
    async fn hash(&self) -> u64;
    /// What is wrong once all are at rest.
    async fn at_rest(&mut self) -> Option<String>;
    fn trace(&self) -> String;
}

/// Takes every choice at every step, in at most `most_runs` runs. Error: the broken promise, with
/// the steps that led there.
pub(crate) fn exhaust<W: World>(setting: W::Setting, most_runs: u64) -> Result<(), String> {
    // The choices of each step that are not taken yet. The last one is taken now.
    let (mut path, mut seen, mut runs) = (Vec::<Vec<W::Choice>>::new(), HashSet::new(), 0_u64);
    loop {
        runs += 1;
        in_virtual_time::<W>(setting, async |world| {
            for place in 0.. {
                if place == path.len() {
                    if !seen.insert(world.hash().await) {
                        return None;
                    }
                    let choices = world.choices().await;
                    if choices.is_empty() {
                        return world.at_rest().await;
                    }
                    path.push(choices);
                }
                let choice = world.same(path[place].last()?);
                if let Some(wrong) = world.step(choice).await {
                    return Some(wrong);
                }
            }
            None
        })?;
        if runs >= most_runs {
            println!("{setting:?}: {} states, given up after {runs} runs", seen.len());
            return Ok(());
        }
        while let Some(step) = path.last_mut() {
            step.pop();
            if !step.is_empty() {
                break;
            }
            path.pop();
        }
        if path.is_empty() {
            break;
        }
    }
    println!("{setting:?}: {} states, {runs} runs", seen.len());
    Ok(())
}

/// Takes random choices, in a given number of runs.
pub(crate) fn sample<W: World>(setting: W::Setting, runs: u64) -> Result<(), String> {
    for seed in 0..runs {
        let mut random = fastrand::Rng::with_seed(seed);
        in_virtual_time::<W>(setting, async |world| {
            loop {
                let mut choices = world.choices().await;
                if choices.is_empty() {
                    return world.at_rest().await;
                }
                let taken = random.usize(..choices.len());
                if let Some(wrong) = world.step(choices.swap_remove(taken)).await {
                    return Some(wrong);
                }
            }
        })
        .map_err(|wrong| format!("seed {seed}: {wrong}"))?;
    }
    println!("{setting:?}: {runs} random runs");
    Ok(())
}

/// Runs a world on a runtime of its own whose clock is paused.
fn in_virtual_time<W: World>(
    setting: W::Setting,
    run: impl AsyncFnOnce(&mut W) -> Option<String>,
) -> Result<(), String> {
    fastrand::seed(0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = W::new(setting).await;
        let wrong = run(&mut world).await;
        wrong.map_or(Ok(()), |wrong| Err(format!("{wrong}\n{}", world.trace())))
    })
}

/// Number of runs of an exhaustive search, unless `AIOQ_MODEL_RUNS` says otherwise. All orders of
/// two kicks of a unique key and a death take 6,500 runs.
pub(crate) fn runs() -> u64 {
    std::env::var("AIOQ_MODEL_RUNS").map_or(200, |number| number.parse().expect("a number"))
}

/// Number of random orders, unless `AIOQ_MODEL_SAMPLES` says otherwise.
pub(crate) fn samples() -> u64 {
    std::env::var("AIOQ_MODEL_SAMPLES").map_or(100, |number| number.parse().expect("a number"))
}
