//! The search: every choice at every step, by running again from the start; or random ones.

use std::collections::HashSet;

use crate::world::{Choice, Setting, World};

/// The choices of a step that are not taken yet. The last one is taken now.
type Step = Vec<Choice>;

/// Takes every choice at every step, in at most `most_runs` runs. Error: the broken promise, with
/// the steps that led there.
pub(crate) fn exhaust(setting: Setting, most_runs: u64) -> Result<(), String> {
    let (mut path, mut seen, mut runs) = (Vec::<Step>::new(), HashSet::new(), 0_u64);
    loop {
        runs += 1;
        in_virtual_time(setting, async |world| {
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
pub(crate) fn sample(setting: Setting, runs: u64) -> Result<(), String> {
    for seed in 0..runs {
        let mut random = fastrand::Rng::with_seed(seed);
        in_virtual_time(setting, async |world| {
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
fn in_virtual_time(
    setting: Setting,
    run: impl AsyncFnOnce(&mut World) -> Option<String>,
) -> Result<(), String> {
    fastrand::seed(0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(setting).await;
        let wrong = run(&mut world).await;
        wrong.map_or(Ok(()), |wrong| Err(format!("{wrong}\n{}", world.trace())))
    })
}
