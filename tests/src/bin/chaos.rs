//! Pulls plugs at random while jobs flow, and tells what became of them.
//!
//! ```text
//! cargo run --release -p aioq-tests --bin chaos -- --minutes 10 --seed 7
//! ```
//!
//! Workers, producers and the server are ended, killed and frozen, and started again. It exits with
//! 1 if a job whose kick was confirmed did not run, or has not exactly one final record. The seed
//! gives the order of the kills; what they hit differs from run to run.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aioq_tests::chaos::{Chaos, Figures, Means, Target, produce};
use aioq_tests::demo_binary;
use clap::{Parser, Subcommand};
use tokio::time::{Instant, sleep};

/// Pulls plugs at random while jobs flow
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Args {
    /// How long
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// What the order of the kills is made of; random unless said
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Kicks jobs: what chaos starts, and kills
    #[command(hide = true)]
    Produce { url: String, prefix: String, name: String, home: PathBuf },
}

/// A round has a server of its own: what it left behind is small enough to be looked through.
const ROUND: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Part::Produce { url, prefix, name, home }) = args.part {
        produce(&url, &prefix, &name, &home).await;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    // Built first, if it is not yet: that takes longer than a round.
    demo_binary()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let mut figures = Figures::default();
    while Instant::now() < end {
        figures = figures.and(round(&mut random, end.min(Instant::now() + ROUND)).await?);
        eprintln!("so far: {figures}");
    }
    print!("{figures}");
    println!("seed {seed}");
    Ok(if figures.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn round(random: &mut fastrand::Rng, end: Instant) -> io::Result<Figures> {
    let mut chaos = Chaos::start(&std::env::current_exe()?).await;
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(..1500))).await;
        let target = [Target::Worker, Target::Producer, Target::Server][random.usize(..3)];
        let means = [Means::Term, Means::Kill, Means::Freeze][random.usize(..3)];
        let number = random.usize(..2);
        eprintln!("{target:?} {number}: {means:?}");
        chaos.strike(target, means, number).await;
        // Whatever it was, the flow goes on.
        chaos.until_ran(1).await;
    }
    Ok(chaos.end().await)
}
