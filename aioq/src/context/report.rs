//! What a running body says of itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::store::{JobRecord, LogLine, Progress};
use crate::time::Timestamp;

/// What a running body says of itself, until it is written into the record.
#[derive(Default)]
pub(crate) struct Report {
    said: Mutex<Said>,
    news: Notify,
}

#[derive(Default)]
struct Said {
    progress: Option<Progress>,
    logs: Vec<LogLine>,
}

impl Report {
    pub(super) fn progress(&self, progress: Progress) {
        self.lock().progress = Some(progress);
        self.news.notify_one();
    }

    pub(super) fn log(&self, line: String) {
        let mut said = self.lock();
        JobRecord::push_log(&mut said.logs, LogLine { at: Timestamp::now(), line });
        drop(said);
        self.news.notify_one();
    }

    /// Resolves when something was said since it was waited for last.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Writes what was said into the record.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        let said = self.lock();
        record.progress.clone_from(&said.progress);
        record.logs.clone_from(&said.logs);
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        // Nothing panics while it is locked.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
