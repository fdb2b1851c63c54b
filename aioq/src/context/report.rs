//! What a running body says of itself.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::store::{JobRecord, LogLine, Progress};
use crate::time::Timestamp;

/// What a running body says of itself, until it is written into the record.
#[derive(Default)]
pub(crate) struct Report {
    /// Most bodies say nothing.
    said: OnceLock<Box<Mutex<Said>>>,
    news: Notify,
}

#[derive(Default)]
struct Said {
    progress: Option<Box<Progress>>,
    logs: Vec<LogLine>,
}

impl Report {
    pub(super) fn progress(&self, mut progress: Progress) {
        if let Some(note) = &mut progress.note {
            JobRecord::cut(note);
        }
        self.say(|said| said.progress = Some(Box::new(progress)));
    }

    pub(super) fn log(&self, line: String) {
        self.say(|said| JobRecord::push_log(&mut said.logs, LogLine { at: Timestamp::now(), line }));
    }

    fn say(&self, say: impl FnOnce(&mut Said)) {
        say(&mut lock(self.said.get_or_init(Box::default)));
        self.news.notify_one();
    }

    /// Resolves when something was said since it was waited for last.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Adds what was said to the record, which holds what earlier runs said.
    pub(crate) fn fill(&self, record: &mut JobRecord) {
        if let Some(said) = self.said.get() {
            let said = lock(said);
            if said.progress.is_some() {
                record.progress.clone_from(&said.progress);
            }
            said.logs.iter().for_each(|line| JobRecord::push_log(&mut record.logs, line.clone()));
        }
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    // Nothing panics while it is locked.
    said.lock().unwrap_or_else(PoisonError::into_inner)
}
