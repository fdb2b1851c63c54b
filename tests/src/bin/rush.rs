//! Lets many processes kick one unique key at once, and kills some of them and the workers.
//!
//! ```text
//! cargo run --release -p aioq-tests --bin rush -- --kickers 64 --rounds 1000 --seed 7
//! ```
//!
//! It exits with 1 if a promise was broken: two jobs of the key at once, a key that nobody holds
//! and that is not free, a kick without an answer. The seed gives the order of the kills; what they
//! hit differs from run to run.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use aioq_tests::demo_binary;
use aioq_tests::rush::{Plan, Rush, kick_when_told};
use clap::{Parser, Subcommand};

/// Lets many processes kick one unique key at once, and kills some of them and the workers
#[derive(Debug, Parser)]
#[command(name = "rush")]
struct Args {
    /// Processes that kick
    #[arg(long, default_value_t = 64)]
    kickers: usize,
    /// Kicks of each
    #[arg(long, default_value_t = 1000)]
    rounds: usize,
    /// Processes that run what is kicked
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// What the order of the kills is made of; random unless said
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Kicks when it is told to: what rush starts, and kills
    #[command(hide = true)]
    Kick { url: String, prefix: String, ledger: PathBuf },
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let Args { kickers, rounds, workers, seed, part } = Args::parse();
    if let Some(Part::Kick { url, prefix, ledger }) = part {
        kick_when_told(&url, &prefix, &ledger).await;
        return Ok(ExitCode::SUCCESS);
    }
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    // Built first, if it is not yet.
    demo_binary()?;
    let plan = Plan { kickers, rounds, workers, seed };
    let figures = Rush::run(plan, &std::env::current_exe()?).await;
    print!("{figures}");
    println!("seed {seed}");
    Ok(if figures.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
