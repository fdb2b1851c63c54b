//! A worker whose tasks have schedules in their code. Each run is a line: the id of the job, its
//! tick, and the time of its start in microseconds since 1970.
//!
//! ```text
//! clockwork worker                                          # in memory
//! clockwork worker --nats nats://127.0.0.1:4222             # as many as you like
//! clockwork schedules --nats nats://127.0.0.1:4222
//! clockwork schedules next "30 2 * * *" --tz Europe/Berlin  # needs no server
//! ```
//!
//! Lines go to standard output, or to the file that the job names, or to the one in the variable
//! `CLOCKWORK_LEDGER`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use aioq::{App, Context, Memory, Timestamp, task};
// For its side effect: it is what makes `--nats URL` work.
use aioq_nats as _;

#[aioq::main]
fn app() -> App {
    App::new(Memory::new())
}

/// Ticks each second, also for schedules that are put at run time.
#[task(every = "1s")]
async fn beat(#[default] path: String, #[inject] ctx: &Context) -> io::Result<()> {
    note(path, ctx)
}

/// Strikes at each full minute.
#[task(cron = "* * * * *", overlap = "skip")]
async fn chime(#[inject] ctx: &Context) -> io::Result<()> {
    note(String::new(), ctx)
}

/// Is wound up at half past two at night, also if nobody was there at that time. When the clocks
/// are set ahead at two, that is three.
#[task(cron = "30 2 * * *", tz = "Europe/Berlin", missed = "once")]
async fn wind(#[inject] ctx: &Context) -> io::Result<()> {
    note(String::new(), ctx)
}

fn note(path: String, ctx: &Context) -> io::Result<()> {
    let tick = ctx.tick().map(Timestamp::as_micros).unwrap_or_default();
    let line = format!("{} {tick} {}\n", ctx.id(), Timestamp::now().as_micros());
    let path = Some(path).filter(|path| !path.is_empty()).or_else(|| std::env::var("CLOCKWORK_LEDGER").ok());
    match path {
        // Written at once: lines of two processes do not mix.
        Some(path) => OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes()),
        None => io::stdout().write_all(line.as_bytes()),
    }
}
