//! A producer: kicks what it reads, one job per line, and prints the id of each job that the broker
//! has confirmed.
//!
//! ```text
//! echo '{"task": "demo.add", "args": {"a": 1, "b": 2}}' | producer nats://127.0.0.1:4222 aioq
//! ```
//!
//! It knows no task: names and arguments are all that a producer needs.

use std::io::{self, BufRead as _, Write as _};

use aioq::Client;
use aioq::tasks::KickOptions;
use aioq_nats::Nats;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Job {
    task: String,
    args: Value,
    #[serde(default)]
    delay_ms: u64,
    unique_key: Option<String>,
    id: Option<String>,
    #[serde(default)]
    after: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = std::env::args().skip(1);
    let (Some(url), Some(prefix)) = (settings.next(), settings.next()) else {
        return Err("usage: producer URL PREFIX < JOBS".into());
    };
    let client = Client::connect(Nats::new(url).prefix(prefix)).await?;
    for line in io::stdin().lock().lines() {
        let Job { task, args, delay_ms, unique_key, id, after } = serde_json::from_str(&line?)?;
        let mut options = match delay_ms {
            0 => KickOptions::new(),
            ms => KickOptions::new().delay(std::time::Duration::from_millis(ms)),
        };
        if let Some(key) = unique_key {
            options = options.unique_key(key);
        }
        if let Some(id) = id {
            options = options.id(id);
        }
        if !after.is_empty() {
            options = options.after_ids(after);
        }
        let handle = client.kiq_by_name(&task, &args, options).await?;
        // Told at once, not when a buffer is full.
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", handle.id())?;
        stdout.flush()?;
    }
    Ok(client.shutdown().await?)
}
