//! Tests of a program with tasks: the body alone, the jobs in place, the queue under control.
//!
//! `cargo run --example testing`: what is called from `main` here would be your `#[tokio::test]`s.

use std::sync::{Mutex, PoisonError};

use aioq::prelude::*;
use aioq::store::Status;
use aioq::{BoxError, ErrorKind};

/// State of the tasks; in a test it only remembers.
#[derive(Default)]
struct Mailbox(Mutex<Vec<String>>);

impl Mailbox {
    fn put(&self, mail: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[task]
async fn greet(name: &str, #[inject] mailbox: &Mailbox) -> Result<usize, String> {
    if name.is_empty() {
        return Err("nobody to greet".to_owned());
    }
    mailbox.put(format!("Hello, {name}!"));
    Ok(mailbox.len())
}

/// Kicks further jobs, and does not wait for them.
#[task]
async fn greet_all(names: Vec<String>) -> TaskResult<usize> {
    for name in &names {
        greet(name).kiq().await?;
    }
    Ok(names.len())
}

/// The code under test: it kicks, and knows nothing of workers.
async fn sign_up(client: &Client, name: &str) -> aioq::Result<TaskHandle<usize>> {
    client.kiq(greet(name).delay("1h")).await
}

fn app() -> App {
    App::new(Memory::new()).state(Mailbox::default())
}

/// The body is a function: no client, no worker.
async fn a_greeting_is_mailed() -> Result<(), BoxError> {
    let mailbox = Mailbox::default();
    assert_eq!(greet::call("Ada", &mailbox).await?, 1);
    assert!(greet::call("", &mailbox).await.is_err());
    Ok(())
}

/// Jobs run inside the kick: when it returns they have ended, and so has what they kicked.
async fn everybody_is_greeted() -> Result<(), BoxError> {
    let client = app().in_place().await?;
    let handle = client.kiq(greet_all(vec!["Ada".into(), "Grace".into()])).await?;
    assert_eq!(handle.get_result().await?, 2);
    assert_eq!(client.kiq(greet("Alan")).await?.get_result().await?, 3, "two were greeted before");
    Ok(())
}

/// A worker that drains runs what is ready, when the test says so.
async fn nobody_is_greeted_twice() -> Result<(), BoxError> {
    let worker = app().worker().await?;
    let client = worker.client();
    let first = client.kiq(greet("Ada").id("greet-ada")).await?;
    let second = client.kiq(greet("Ada").id("greet-ada")).await?;
    assert_eq!(first.get_result().await.err().map(|error| error.kind()), Some(ErrorKind::NotReady));
    assert_eq!(worker.drain().await?.jobs, 1);
    assert_eq!(second.get_result().await?, 1);
    Ok(())
}

/// A kicked job can be inspected without running it.
async fn a_new_user_is_greeted_after_an_hour() -> Result<(), BoxError> {
    let client = app().client().await?;
    let record = sign_up(&client, "Ada").await?.record().await?;
    assert_eq!((&*record.task, record.status), (greet::NAME, Status::Scheduled));
    let (run_at, kicked_at) = record.run_at.zip(record.kicked_at).ok_or("both are known")?;
    assert_eq!(run_at.since(kicked_at).as_secs(), 3600);
    let arguments: Vec<String> = record.arguments.iter().map(|arguments| arguments.to_json()).collect();
    assert_eq!(arguments, [r#"{"name":"Ada"}"#]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    a_greeting_is_mailed().await?;
    everybody_is_greeted().await?;
    nobody_is_greeted_twice().await?;
    a_new_user_is_greeted_after_an_hour().await
}
