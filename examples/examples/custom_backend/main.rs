//! A backend of your own: aioq on `redb`, a database in one file inside the process.
//!
//! Read it in this order, which is also the order to write one in: `file.rs` (the database, and
//! what every seam needs), `watch.rs` (telling the watchers), `kv.rs` (the smallest seam),
//! `page.rs` (pieces of lists), `jobs.rs` (the first seam again, with records), `messages.rs` (the
//! steps of a message), `broker.rs` (taking them in, and showing them), `listener.rs` (handing
//! them out), `backend.rs` (all together). The test `tests/custom_backend.rs` proves it by the
//! conformance suite.
//!
//! Run it with `cargo run --example custom_backend`.

#![allow(unreachable_pub, reason = "a program has no outside")]

mod backend;
mod broker;
mod file;
mod jobs;
mod kv;
mod listener;
mod messages;
mod page;
mod watch;

use aioq::prelude::*;

#[task(retry(max = 1, backoff = "10ms"))]
async fn welcome(to: String, #[inject] ctx: &Context) -> Result<String, String> {
    match ctx.attempt() {
        1 => Err("the first attempt always fails".to_owned()),
        attempt => Ok(format!("welcome, {to}, at attempt {attempt}")),
    }
}

#[tokio::main]
async fn main() -> Result<(), aioq::Error> {
    let path = std::env::temp_dir().join(format!("aioq-custom-backend-{}.redb", std::process::id()));

    // One life of the program kicks ...
    let client = Client::connect(backend::Redb::new(&path)).await?;
    let id = client.kiq(welcome("ann".to_owned())).await?.id().clone();
    client.shutdown().await?;

    // ... and the next one opens the same file and runs. Retries, records and results are not in
    // this backend: they come with aioq.
    let worker = App::new(backend::Redb::new(&path)).worker().await?;
    let client = worker.client().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(worker.run(async {
        _ = stopped.await;
    }));
    let handle = client.handle::<String>(id).await?;
    assert_eq!(handle.result().await?, "welcome, ann, at attempt 2");
    println!("{}", handle.result().await?);

    _ = stop.send(());
    running.await.expect("the worker does not panic")?;
    client.shutdown().await?;
    _ = std::fs::remove_file(path);
    Ok(())
}
