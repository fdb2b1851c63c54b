//! What the store says of jobs, read past aioq: [`statuses`].

use std::collections::HashMap;

use futures_util::TryStreamExt;

/// For each job the statuses of all records that are stored of it: one, unless something went wrong.
///
/// # Panics
/// The server does not answer.
pub async fn statuses(url: &str, prefix: &str) -> HashMap<String, Vec<String>> {
    let servers: Vec<_> = url.split(',').collect();
    let client = async_nats::connect(servers).await.expect("the server takes connections");
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream(format!("{}_RECORDS", prefix.to_uppercase())).await;
    let stream = stream.expect("the records have a stream");
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
