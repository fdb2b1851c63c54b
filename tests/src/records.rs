//! Statuses of jobs as the server stores them, read past aioq: [`statuses`].

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;

/// For each job the statuses of all records that are stored of it: one, unless something went
/// wrong. Records that were just written over get a moment to go.
///
/// # Panics
/// The server does not answer.
pub async fn statuses(url: &str, prefix: &str) -> HashMap<String, Vec<String>> {
    let servers: Vec<_> = url.split(',').collect();
    let client = async_nats::connect(servers).await.expect("the server takes connections");
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream(format!("{}_RECORDS", prefix.to_uppercase())).await;
    let stream = stream.expect("the records have a stream");
    for _ in 0..TRIES {
        if read(&stream, prefix).await.values().all(|statuses| statuses.len() == 1) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    read(&stream, prefix).await
}

/// How often, and how long after one look, to look again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

async fn read(stream: &Stream, prefix: &str) -> HashMap<String, Vec<String>> {
    let subjects = stream.info_with_subjects(format!("{prefix}.r.>")).await.expect("the stream can be read");
    let subjects: Vec<_> = subjects.try_collect().await.expect("its subjects can be read");
    let mut statuses = HashMap::<String, Vec<String>>::new();
    for (subject, _) in subjects {
        // <prefix>.r.<queue>.<status>.<id>
        let mut tokens = subject.rsplit('.');
        if let (Some(id), Some(status)) = (tokens.next(), tokens.next()) {
            statuses.entry(id.to_owned()).or_default().push(status.to_owned());
        }
    }
    statuses
}
